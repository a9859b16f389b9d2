/**
 * Crashes and faults at every single storage operation of a script of streaming, reconnecting and uploading. Invariants:
 * every byte that was acknowledged, by a position or by a resolved call, is readable and equal after recovery; the archive
 * then takes the rest of the WAL; no gap appears; and nothing is left aside.
 *
 * @module
 */

import assert from "node:assert/strict";

import { utf8 } from "../../src/base/bytes.ts";
import { failureKind } from "../../src/base/failure.ts";
import { SILENT } from "../../src/base/log.ts";
import { compressUnit } from "../../src/codec/walfile/unit_frame.ts";
import {
  type Lsn,
  lsn,
  lsnAdd,
  lsnDistance,
  segmentName,
  segmentNameStart,
  segmentOffset,
  segmentStart,
  timelineId,
} from "../../src/domain/lsn.ts";
import { WalArchive } from "../../src/features/walarchive/mod.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { wal } from "../support/fake_wal.ts";
import { MemoryFiles } from "../support/memory_files.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { TRUSTING } from "../support/trusting_verification.ts";

const MIB = 1 << 20;
const ROOT = "/data/wal";
const KEY = new Uint8Array(32).fill(3);
const WHO = { cluster: "pg", systemId: "7300000000000000001" };
const TIMELINE = timelineId(1);
const HISTORY = utf8("1\t0/600000\tno recovery target specified\n");
const FIRST = lsn(5n * BigInt(MIB));
const LAST = lsnAdd(FIRST, 3 * MIB + 12_345);
const WAIT = { signal: new AbortController().signal };

/** What clients were told, over all lives of the server. */
interface Promised {
  durable: Lsn;
  history: boolean;
}

async function volume(): Promise<MemoryFiles> {
  const files = new MemoryFiles();
  await files.makeDirectory(ROOT);
  await files.writeFileAtomic(`${ROOT}/wal.key`, utf8("stands for the key"));
  return files;
}

function openArchive(files: MemoryFiles, random: SeededRandom): Promise<WalArchive> {
  const options = {
    files,
    random,
    clock: new FakeClock(),
    log: SILENT,
    root: ROOT,
    beginVerification: TRUSTING,
  };
  return WalArchive.openWithKey(options, KEY);
}

/** Streams from where the archive wants it up to `end`, in pieces of random size, some of them shared commits. */
async function streamTo(
  archive: WalArchive,
  promised: Promised,
  { end, random }: { readonly end: Lsn; readonly random: SeededRandom },
): Promise<void> {
  const proposal = segmentName(TIMELINE, FIRST, MIB);
  const answer = await archive.requestStart({ ...WHO, proposal }, WAIT);
  const start = segmentNameStart(answer, MIB);
  // All before `start` is the server's word as well: a client reports it as flushed.
  if (start > promised.durable) promised.durable = start;
  if (start >= end) return;
  const request = { ...WHO, timeline: TIMELINE, start, segmentSizeBytes: MIB };
  await using append = await archive.append(request, WAIT);
  const acknowledged = (async () => {
    for await (const durable of append.acknowledgements()) {
      if (durable > promised.durable) promised.durable = durable;
    }
  })();
  const settled = acknowledged.catch(() => {/* `finish` or `send` tells the same failure */});
  try {
    for (let position = start; position < end;) {
      const size = random.pick([1, 8192, 100_000, 700_000, 2 * MIB]);
      const length = Math.min(size, lsnDistance(position, end));
      const bytes = wal(position, length);
      // The longer ones come with their frame, as from the network, unless they cross the end of a segment.
      const isFramed = length >= 8192 && segmentOffset(position, MIB) + length <= MIB;
      const options = isFramed ? { ...WAIT, frame: compressUnit(bytes) } : WAIT;
      await append.send(position, bytes, options);
      position = lsnAdd(position, length);
    }
    await append.finish(WAIT);
  } finally {
    await append[Symbol.asyncDispose]();
    await settled;
  }
  assert.equal(promised.durable >= end, true, "finish acknowledges everything");
}

async function upload(archive: WalArchive, promised: Promised, end: Lsn): Promise<void> {
  const start = segmentStart(end, MIB);
  async function* blocks() {
    for (let position = start; position < end; position = lsnAdd(position, 4096)) {
      yield await Promise.resolve(wal(position, Math.min(4096, lsnDistance(position, end))));
    }
  }
  const name = segmentName(TIMELINE, start, MIB);
  await archive.putFile(
    { cluster: WHO.cluster, name, segmentSizeBytes: MIB, blocks: blocks() },
    WAIT,
  );
  if (end > promised.durable) promised.durable = end;
}

/** One life of the server. */
async function script(files: MemoryFiles, promised: Promised, random: SeededRandom): Promise<void> {
  await using archive = await openArchive(files, random);
  await streamTo(archive, promised, { end: lsnAdd(FIRST, 9000), random });
  await archive.putHistory({ ...WHO, timeline: timelineId(2), content: HISTORY }, WAIT);
  promised.history = true;
  await streamTo(archive, promised, { end: lsnAdd(FIRST, MIB + 300_000), random });
  await streamTo(archive, promised, { end: lsnAdd(FIRST, 3 * MIB), random });
  await upload(archive, promised, LAST);
}

async function check(files: MemoryFiles, promised: Promised, random: SeededRandom): Promise<void> {
  await using archive = await openArchive(files, random);
  for (let start = FIRST; start < promised.durable; start = lsnAdd(start, MIB)) {
    const name = segmentName(TIMELINE, start, MIB);
    const wanted = Math.min(MIB, lsnDistance(start, promised.durable));
    const request = { cluster: WHO.cluster, name: wanted === MIB ? name : `${name}.partial` };
    let offset = 0;
    for await (const block of (await archive.get(request, WAIT)).blocks) {
      assert.deepEqual(block, wal(lsnAdd(start, offset), block.length));
      offset += block.length;
    }
    assert.ok(offset >= wanted, `${name} has ${offset} bytes, ${wanted} were acknowledged`);
  }
  if (promised.history) {
    await archive.get({ cluster: WHO.cluster, name: "00000002.history" }, WAIT);
  }
  const { gaps } = await archive.metadata(WHO.cluster, WAIT).catch(() => ({ gaps: [] }));
  assert.deepEqual(gaps, []);
}

async function checkTidy(files: MemoryFiles): Promise<void> {
  const names: string[] = [];
  const walk = async (path: string): Promise<void> => {
    for (const name of await files.list(path)) {
      names.push(name);
      if ((await files.stat(`${path}/${name}`)).kind === "directory") await walk(`${path}/${name}`);
    }
  };
  await walk(ROOT);
  assert.deepEqual(names.filter((name) => name.includes(".tmp.")), []);
}

async function countOperations(): Promise<number> {
  const files = await volume();
  const before = files.operations;
  await script(files, { durable: FIRST, history: false }, new SeededRandom(1));
  return files.operations - before;
}

Deno.test("acknowledged WAL survives a crash at every storage operation, and one in the recovery", async () => {
  const operations = await countOperations();
  for (let n = 1; n <= operations; n++) {
    for (let seed = 1; seed <= 3; seed++) {
      const promised: Promised = { durable: FIRST, history: false };
      const random = new SeededRandom(n * 100 + seed);
      const chaos = random.fork();
      let files = await volume();
      files.crashAt(files.operations + n);
      const story = `crash at operation ${n}, seed ${seed}`;
      for (let life = 0; life < 2; life++) {
        await script(files, promised, random).catch((error) => {
          assert.ok(files.crashed, `${story}: ${error}`);
        });
        files = files.afterCrash(chaos.integer(0, 1_000_000));
        await check(files, promised, random).catch((error) => {
          throw new Error(`${story}, life ${life}`, { cause: error });
        });
        files.crashAt(files.operations + chaos.integer(1, operations));
      }
      files.crashAt(Number.POSITIVE_INFINITY);
      await script(files, promised, random);
      await check(files, { durable: LAST, history: true }, random);
      await checkTidy(files);
    }
  }
});

Deno.test("acknowledged WAL survives a fault in every storage operation, followed by a crash", async () => {
  const operations = await countOperations();
  for (let n = 0; n < operations; n++) {
    for (const kind of ["repository", "exhausted"] as const) {
      const promised: Promised = { durable: FIRST, history: false };
      const random = new SeededRandom(n);
      const files = await volume();
      files.setFault({ kind, skip: n, count: n % 2 === 0 ? 1 : 3 });
      const story = `${kind} in operation ${n + 1}`;
      await script(files, promised, random).catch((error) => {
        assert.equal(failureKind(error), kind, `${story}: ${error}`);
      });
      files.clearFault();
      await script(files, promised, random);
      const after = files.afterCrash(random.integer(0, 1_000_000));
      await check(after, { durable: LAST, history: true }, random).catch((error) => {
        throw new Error(story, { cause: error });
      });
      await checkTidy(after);
    }
  }
});
