/**
 * The WAL verifier against real WAL of every supported PostgreSQL. Clean WAL is found clean, and `pg_waldump`, where there
 * is one, lists the same records. A flipped bit is found before `verified` reaches the record or page it lies in, for
 * every class of bytes that anything covers; the classes that nothing covers are named here, and there a flip must change
 * nothing. `KLIO_TEST_DEEP=1` flips many more.
 *
 * @module
 */

import assert from "node:assert/strict";
import {
  formatLsn,
  type Lsn,
  LSN_ZERO,
  lsnAdd,
  lsnDistance,
  parseLsn,
  segmentName,
} from "../../src/domain/lsn.ts";
import { type SegmentVerdict, WalVerifier } from "../../src/codec/walrecord/mod.ts";
import { type PostgresMajor, temporaryDirectory } from "../support/postgres.ts";
import {
  makeRealWal,
  REAL_WAL_SEGMENT_BYTES as SEGMENT,
  type RealTimeline,
  type RealWal,
} from "../support/real_wal.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { type ByteClass, WalMap } from "../support/wal_map.ts";

const { signal } = new AbortController();
const DEEP = Deno.env.get("KLIO_TEST_DEEP") === "1";
const FLIPS_PER_CLASS = DEEP ? 2000 : 40;
const WALDUMP_FLIPS = DEEP ? 600 : 40;
const MAJORS: readonly PostgresMajor[] = [15, 16, 17, 18];
const SEED = 20_260;
/** Enough to decide every record of this WAL that begins in the first of them. */
const WINDOW = 4 * SEGMENT;
const CHUNK = 64 << 10;

/** Nothing covers these, and PostgreSQL does not read them. */
const UNCOVERED: ReadonlySet<ByteClass> = new Set<ByteClass>([
  "page padding",
  "padding",
  "fill after a switch",
  "torn record",
]);

interface Outcome {
  readonly verifier: WalVerifier;
  readonly verdicts: readonly SegmentVerdict[];
}

/** Verifies `bytes` from a segment on; stops at a violation. */
function verify(wal: RealWal, part: RealTimeline, start: Lsn, bytes: Uint8Array): Outcome {
  const verifier = new WalVerifier({
    timeline: part.timeline,
    history: part.history,
    systemId: wal.systemId,
    major: wal.major,
    segmentSizeBytes: SEGMENT,
    start,
  });
  const verdicts: SegmentVerdict[] = [];
  for (let at = 0; at < bytes.length && verifier.violation === undefined; at += CHUNK) {
    verdicts.push(...verifier.feed(bytes.subarray(at, at + CHUNK)));
  }
  return { verifier, verdicts };
}

for (const major of MAJORS) {
  Deno.test(`WalVerifier reads real WAL of PostgreSQL ${major}`, async (t) => {
    await using wal = await makeRealWal({ major, signal });
    for (const part of wal.timelines) {
      await t.step(`timeline ${part.timeline} is clean, with the records that are there`, () => {
        assertClean(wal, part);
      });
      await t.step(`timeline ${part.timeline}: every flipped bit that is covered is found`, () => {
        flipEverything(wal, part);
      });
    }
    await t.step("the torn record was overwritten", () => {
      const [first] = wal.timelines;
      assert.ok(first !== undefined);
      const map = new WalMap(first.bytes, SEGMENT);
      assert.equal(map.at(lsnDistance(first.start, wal.torn) + 64).kind, "torn record");
    });
    if (!await hasWaldump(wal)) return;
    for (const part of wal.timelines) {
      await t.step(`timeline ${part.timeline}: pg_waldump lists the same records`, async () => {
        await compareRecords(wal, part);
      });
    }
    await t.step("pg_waldump never reads beyond a flip that the verifier stops at", async () => {
      await compareFlips(wal);
    });
  });
}

function assertClean(wal: RealWal, part: RealTimeline): void {
  const { verifier, verdicts } = verify(wal, part, part.start, part.bytes);
  assert.equal(verifier.violation, undefined);
  assert.equal(verifier.position, lsnAdd(part.start, part.bytes.length));
  assert.equal(verifier.verified, verifier.position);
  const all = [...verdicts, verifier.verdict()];
  const records = new WalMap(part.bytes, SEGMENT).records.map((at) => lsnAdd(part.start, at));
  assert.equal(all.reduce((sum, verdict) => sum + verdict.records, 0), records.length);
  let index = 0;
  for (const verdict of all) {
    if (verdict.records === 0) continue;
    assert.equal(verdict.firstRecord, records[index]);
    index += verdict.records;
    assert.equal(verdict.lastRecord, records[index - 1]);
  }
  assert.ok(records.length > 10_000, "the workload writes many records");
}

/** Flips random bits until every class that occurs had its share. */
function flipEverything(wal: RealWal, part: RealTimeline): void {
  const random = new SeededRandom(SEED);
  const map = new WalMap(part.bytes, SEGMENT);
  const offsets = Map.groupBy(sampleOffsets(part.bytes.length, random), (at) => map.at(at).kind);
  assert.ok(offsets.size >= 15, `the samples reach all classes: ${[...offsets.keys()].join()}`);
  const headEnds = new Map<number, Lsn>();
  for (const [kind, all] of offsets) {
    for (const offset of all.slice(0, FLIPS_PER_CLASS)) {
      const bit = random.integer(0, 7);
      const hint = `seed ${SEED}: ${kind}, offset ${offset}, bit ${bit}`;
      const from = offset - offset % SEGMENT;
      const start = lsnAdd(part.start, from);
      const window = part.bytes.subarray(from, from + WINDOW);
      const headEnd = headEnds.get(from) ?? headEndOf(wal, part, start, window);
      headEnds.set(from, headEnd);
      flip(window, offset - from, bit);
      const { verifier } = verify(wal, part, start, window);
      flip(window, offset - from, bit);
      const inHead = lsnAdd(part.start, offset) < headEnd;
      if (inHead && kind === "page remaining") continue; // to 8 bytes only
      const isRemark = kind === "page flags" && offset % 4 === 2 && bit === 2;
      if (UNCOVERED.has(kind) || isRemark || (inHead && !kind.startsWith("page"))) {
        assert.equal(verifier.violation, undefined, hint);
        continue;
      }
      const owner = lsnAdd(part.start, map.at(offset).owner);
      assert.ok(verifier.verified <= owner, `${hint}: verified stays before it`);
      const openAtEnd = verifier.verdict().openRecord === owner;
      assert.ok(verifier.violation !== undefined || openAtEnd, `${hint}: is found`);
    }
  }
}

function flip(bytes: Uint8Array, offset: number, bit: number): void {
  bytes[offset] = (bytes[offset] ?? 0) ^ (1 << bit);
}

/** End of the bytes of a record that begins before `start`. */
function headEndOf(wal: RealWal, part: RealTimeline, start: Lsn, clean: Uint8Array): Lsn {
  const { verdicts, verifier } = verify(wal, part, start, clean);
  const ends = [...verdicts, verifier.verdict()].map((verdict) => verdict.uncheckedHeadEnd);
  return ends.findLast((end) => end !== undefined) ?? start;
}

/** Many random offsets, and those of page headers and of the bytes around, which chance would rarely hit. */
function sampleOffsets(sizeBytes: number, random: SeededRandom): number[] {
  const offsets: number[] = [];
  for (let i = 0; i < FLIPS_PER_CLASS * 150; i++) offsets.push(random.integer(0, sizeBytes - 1));
  for (let i = 0; i < FLIPS_PER_CLASS * 40; i++) {
    const page = random.integer(0, Math.floor((sizeBytes - 80) / 8192)) * 8192;
    offsets.push(page + random.integer(0, 63));
    const segment = random.integer(0, Math.floor((sizeBytes - 80) / SEGMENT)) * SEGMENT;
    offsets.push(segment + random.integer(24, 39));
  }
  return offsets;
}

async function hasWaldump(wal: RealWal): Promise<boolean> {
  try {
    await Deno.stat(`${wal.programs}/pg_waldump`);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

interface Dump {
  readonly output: string;
  /** Last record before the error; undefined without one. */
  readonly failedAfter: Lsn | undefined;
}

async function waldump(wal: RealWal, args: readonly string[]): Promise<Dump> {
  const result = await new Deno.Command(`${wal.programs}/pg_waldump`, {
    args: [...args],
    stdout: "piped",
    stderr: "piped",
  }).output();
  const complaint = new TextDecoder().decode(result.stderr);
  const last = /error in WAL record at ([0-9A-F]+\/[0-9A-F]+)/.exec(complaint)?.[1];
  return {
    output: new TextDecoder().decode(result.stdout),
    // It does not say so when it finds no record to begin with.
    failedAfter: result.success ? undefined : parseLsn(last ?? "0/0"),
  };
}

async function compareRecords(wal: RealWal, part: RealTimeline): Promise<void> {
  const end = lsnAdd(part.start, part.bytes.length);
  await using directory = await temporaryDirectory();
  for (let at = 0; at < part.bytes.length; at += SEGMENT) {
    await writeSegment(directory.path, part, at, part.bytes.subarray(at, at + SEGMENT));
  }
  const { output } = await waldump(wal, [
    `--path=${directory.path}`,
    `--timeline=${part.timeline}`,
    `--start=${formatLsn(part.start)}`,
    `--end=${formatLsn(end)}`,
  ]);
  const listed = [...output.matchAll(/ lsn: ([0-9A-F]+\/[0-9A-F]+),/g)].map((m) =>
    parseLsn(m[1] ?? "")
  );
  const records = new WalMap(part.bytes, SEGMENT).records.map((at) => lsnAdd(part.start, at));
  assert.deepEqual(listed, records);
}

async function writeSegment(
  directory: string,
  part: RealTimeline,
  offset: number,
  bytes: Uint8Array,
): Promise<string> {
  const whole = new Uint8Array(SEGMENT);
  whole.set(bytes);
  const path = `${directory}/${segmentName(part.timeline, lsnAdd(part.start, offset), SEGMENT)}`;
  await Deno.writeFile(path, whole);
  return path;
}

/**
 * Flips bits of single segments and has both read them. Where `pg_waldump` gives up, the verifier must have stopped at the
 * same record or before, at something that `pg_waldump` does not check.
 */
async function compareFlips(wal: RealWal): Promise<void> {
  await using directory = await temporaryDirectory();
  const random = new SeededRandom(SEED);
  const [part] = wal.timelines;
  assert.ok(part !== undefined);
  const map = new WalMap(part.bytes, SEGMENT);
  // In a segment in which no record begins, pg_waldump finds nothing to read.
  const segments = [...new Set(map.records.map((at) => at - at % SEGMENT))].slice(0, -1);
  let failed = 0;
  for (let i = 0; i < WALDUMP_FLIPS; i++) {
    const from = segments[random.integer(0, segments.length - 1)] ?? 0;
    const page = random.integer(0, SEGMENT / 8192 - 1) * 8192;
    const offset = page + random.integer(0, i % 2 === 0 ? 8191 : 80);
    const bytes = part.bytes.slice(from, from + SEGMENT);
    flip(bytes, offset, random.integer(0, 7));
    const path = await writeSegment(directory.path, part, from, bytes);
    const { failedAfter } = await waldump(wal, ["--quiet", path, path]);
    const { verifier } = verify(wal, part, lsnAdd(part.start, from), bytes);
    if (failedAfter === undefined) continue;
    failed++;
    const hint = `seed ${SEED}, flip ${i}: ${map.at(from + offset).kind}, offset ${from + offset}`;
    const { violation, lastRecord } = verifier.verdict();
    assert.ok(violation !== undefined, `${hint}: is found`);
    if (failedAfter === LSN_ZERO) continue;
    assert.ok((lastRecord ?? LSN_ZERO) <= failedAfter, `${hint}: read on to ${lastRecord}`);
  }
  assert.ok(failed > WALDUMP_FLIPS / 4, "pg_waldump found a good part of the flips");
}
