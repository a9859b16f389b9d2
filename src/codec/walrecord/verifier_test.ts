import assert from "node:assert/strict";
import fc from "fast-check";
import { WalWriter, type WalWriterOptions } from "../../../tests/support/wal_writer.ts";
import { SeededRandom } from "../../../tests/support/seeded_random.ts";
import { crc32c } from "../crc32c.ts";
import { type Lsn, lsn, lsnAdd, type TimelineId, timelineId } from "../../domain/lsn.ts";
import { type SegmentVerdict, WalVerifier, type WalViolationKind } from "./mod.ts";
import type { WalVerifierOptions } from "./verifier.ts";

const MIB = 1 << 20;
const PAGE = 8192;
const ONE = timelineId(1);
const PLACE = {
  timeline: ONE,
  systemId: "7710957193371977682",
  segmentSizeBytes: MIB,
  start: lsn(0x7_ffe0_0000n),
} as const;

function writer(options: Partial<WalWriterOptions> = {}): WalWriter {
  return new WalWriter({ ...PLACE, sizeBytesMax: 8 * MIB, ...options });
}

interface Outcome {
  readonly verifier: WalVerifier;
  readonly verdicts: readonly SegmentVerdict[];
}

/** All verdicts, the one of the partial at the end included. */
function verify(bytes: Uint8Array, options: Partial<WalVerifierOptions> = {}): Outcome {
  const verifier = new WalVerifier({ ...PLACE, ...options });
  const verdicts = [...verifier.feed(bytes)];
  if (bytes.length % MIB !== 0) verdicts.push(verifier.verdict());
  return { verifier, verdicts };
}

function assertClean(wal: WalWriter, outcome: Outcome): void {
  assert.equal(outcome.verifier.violation, undefined);
  assert.equal(outcome.verifier.verified, wal.position);
  assert.equal(outcome.verifier.position, wal.position);
  assert.equal(outcome.verdicts.reduce((sum, v) => sum + v.records, 0), wal.records.length);
}

function assertViolation(
  outcome: Outcome,
  kind: WalViolationKind | undefined,
  position: Lsn,
  hint = "",
): void {
  const { violation, verified } = outcome.verifier;
  assert.ok(violation !== undefined, `a violation at ${position.toString(16)} ${hint}`);
  if (kind !== undefined) assert.equal(violation.kind, kind, hint);
  assert.equal(violation.position.toString(16), position.toString(16), hint);
  assert.ok(verified <= position, hint);
}

/** Flips one bit and verifies. */
function flipped(wal: WalWriter, position: Lsn, mask = 1): Outcome {
  const bytes = wal.bytes();
  const offset = wal.offsetOf(position);
  bytes[offset] = (bytes[offset] ?? 0) ^ mask;
  return verify(bytes);
}

/** Three segments and a bit, over the end of a log id: small and large records, headers split over pages and segments. */
function mixedWal(): WalWriter {
  const wal = writer();
  wal.record(60);
  wal.record(3 * PAGE);
  wal.fillSegment(16); // the next header is split over segments
  wal.record(100);
  for (let size = 24; size < 300; size++) wal.record(size);
  wal.fillSegment(8);
  wal.record(24);
  wal.record(20_000);
  wal.switchSegment();
  for (let size = 24; size < 100; size++) wal.record(size);
  return wal;
}

Deno.test("WalVerifier finds nothing wrong in clean WAL and says what each segment holds", () => {
  const wal = mixedWal();
  const outcome = verify(wal.bytes());
  assertClean(wal, outcome);
  assert.equal(outcome.verifier.major, 15);
  const [first, second, third, last] = outcome.verdicts;
  const at = (index: number) => lsnAdd(PLACE.start, index);
  const begunIn = (index: number) =>
    wal.records.filter((r) => r >= at(index * MIB) && r < at((index + 1) * MIB));
  assert.deepEqual(first, {
    timeline: ONE,
    segmentSizeBytes: MIB,
    start: PLACE.start,
    sizeBytes: MIB,
    records: begunIn(0).length - 1,
    firstRecord: wal.records[0],
    lastRecord: begunIn(0).at(-2),
    openRecord: at(MIB - 16),
    uncheckedHeadEnd: undefined,
    zerosFrom: undefined,
    violation: undefined,
  });
  assert.equal(second?.firstRecord, at(MIB - 16));
  assert.equal(second?.openRecord, at(2 * MIB - 8));
  assert.equal(third?.lastRecord, begunIn(2).at(-1));
  assert.equal(third?.openRecord, undefined);
  assert.equal(last?.sizeBytes, wal.bytes().length % MIB);
});

Deno.test("WalVerifier comes to the same end however the bytes are cut, and never runs ahead of records", () => {
  const wal = mixedWal();
  const clean = wal.bytes();
  const broken = wal.bytes();
  broken[MIB + 5 * PAGE + 77] = (broken[MIB + 5 * PAGE + 77] ?? 0) ^ 4;
  const switched = wal.records[wal.records.length - 77] ?? PLACE.start;
  const fillEnd = lsnAdd(PLACE.start, 3 * MIB);
  fc.assert(
    fc.property(fc.boolean(), fc.array(fc.nat(clean.length), { maxLength: 60 }), (clear, cuts) => {
      const bytes = clear ? clean : broken;
      const whole = verify(bytes);
      const verifier = new WalVerifier(PLACE);
      const verdicts: SegmentVerdict[] = [];
      let from = 0;
      for (const cut of [...cuts.sort((a, b) => a - b), bytes.length]) {
        const before = verifier.verified;
        verdicts.push(...verifier.feed(bytes.subarray(from, cut)));
        from = cut;
        assert.ok(verifier.verified >= before && verifier.verified <= verifier.position);
        // The next record is there, or behind the page header that is there.
        const next = wal.records.find((record) => record >= verifier.verified) ?? wal.position;
        const inFill = verifier.verified > switched && verifier.verified <= fillEnd;
        assert.ok(next - verifier.verified <= 40n || inFill, `verified ${verifier.verified}`);
      }
      verdicts.push(verifier.verdict());
      assert.deepEqual(verdicts, whole.verdicts);
      assert.equal(verifier.verified, whole.verifier.verified);
    }),
    { numRuns: 60 },
  );
});

Deno.test("WalVerifier comes to the same end when cut at any one place or fed byte by byte", () => {
  const wal = writer();
  wal.record(60);
  wal.record(PAGE);
  for (let size = 24; size < 90; size++) wal.record(size);
  const bytes = wal.bytes();
  const whole = verify(bytes).verdicts.at(-1);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const verifier = new WalVerifier(PLACE);
    verifier.feed(bytes.subarray(0, cut));
    assert.equal(verifier.position, lsnAdd(PLACE.start, cut));
    assert.ok(verifier.verified <= verifier.position);
    assert.equal(verifier.verified % 8n, 0n, "padding counts as part of its record");
    verifier.feed(bytes.subarray(cut));
    assert.deepEqual(verifier.verdict(), whole, `cut at ${cut}`);
    assert.equal(verifier.verified, wal.position);
  }
  const verifier = new WalVerifier(PLACE);
  for (const byte of bytes) verifier.feed(new Uint8Array([byte]));
  assert.deepEqual(verifier.verdict(), whole);
});

Deno.test("WalVerifier names what is wrong in a page header", () => {
  const wal = writer();
  wal.record(3 * PAGE);
  wal.record(PAGE);
  fillPage(wal, 0); // page 5 begins with a record
  wal.fillSegment(0);
  wal.record(100);
  const cases: ReadonlyArray<readonly [number, number, number, WalViolationKind | undefined]> = [
    // page, offset in the header, mask
    [0, 0, 0x01, "page_magic"],
    [1, 1, 0x01, "page_magic"],
    [1, 0, 0x03, "page_magic"], // of another version
    [1, 2, 0x01, "continuation"],
    [1, 2, 0x02, "page_flags"],
    [0, 2, 0x02, "page_flags"],
    [1, 2, 0x04, undefined], // a remark for compressors
    [1, 2, 0x08, "page_flags"],
    [4, 2, 0x10, "page_flags"],
    [1, 4, 0x02, "timeline"],
    [1, 8, 0x01, "page_address"],
    [1, 15, 0x80, "page_address"],
    [1, 16, 0x01, "continuation"],
    [5, 17, 0x01, "continuation"], // continues nothing
    [5, 2, 0x08, "continuation"], // overwrites nothing
    [0, 19, 0x80, "continuation"],
    [1, 20, 0xff, undefined], // padding
    [0, 24, 0x01, "system_id"],
    [128, 31, 0x01, "system_id"],
    [128, 34, 0x10, "segment_size"],
    [128, 37, 0x20, "block_size"],
  ];
  for (const [page, offset, mask, kind] of cases) {
    const pageStart = lsnAdd(PLACE.start, page * PAGE);
    const outcome = flipped(wal, lsnAdd(pageStart, offset), mask);
    const hint = `page ${page} offset ${offset}`;
    if (kind === undefined) assertClean(wal, outcome);
    else assertViolation(outcome, kind, pageStart, hint);
  }
});

Deno.test("WalVerifier finds every flipped bit of a record, at the record, wherever it lies", () => {
  const wal = writer();
  wal.record(60);
  wal.record(41);
  const places: ReadonlyArray<readonly [Lsn, number]> = [
    [wal.record(77), 77],
    [(fillPage(wal, 8), wal.record(77)), 77], // header split after the length
    [(fillPage(wal, 16), wal.record(50)), 50],
    [(fillPage(wal, 24), wal.record(64)), 64],
    [(wal.fillSegment(16), wal.record(80)), 80],
  ];
  for (const [start, size] of places) {
    let at = wal.offsetOf(start) - 1;
    for (let i = 0; i < size; i++) {
      at++;
      const inPage = at % PAGE;
      if (i > 0 && inPage === 0) at += at % MIB === 0 ? 40 : 24;
      const outcome = flipped(wal, lsnAdd(PLACE.start, at), 1 << (i % 8));
      // A wrong length may show first at the next page, which does not continue it.
      const { violation, verified } = outcome.verifier;
      assert.ok(violation !== undefined || i < 4, `byte ${i} of ${start}`);
      assert.ok(verified <= start, `byte ${i}: verified stays before the record`);
      if (i >= 4) assert.equal(violation?.position, start, `byte ${i}`);
      if (i >= 8 && i < 16) assert.equal(violation?.kind, "prev_link");
      if (i >= 16) assert.equal(violation?.kind, "crc");
    }
  }
});

/** Records until `leftBytes` are left in the page. */
function fillPage(wal: WalWriter, leftBytes: number): void {
  wal.record(200);
  wal.record(PAGE - wal.offsetOf(wal.position) % PAGE - leftBytes);
}

Deno.test("WalVerifier does not see flipped padding: nothing covers it", () => {
  const wal = writer();
  const start = wal.record(61);
  wal.record(60);
  for (const i of [61, 62, 63]) assertClean(wal, flipped(wal, lsnAdd(start, i)));
});

Deno.test("WalVerifier refuses lengths no record can have", () => {
  for (const length of [0, 23, (1 << 30) + 1, 0xffff_ffff]) {
    const wal = writer();
    wal.record(60);
    const start = wal.record(60);
    const bytes = wal.bytes();
    new DataView(bytes.buffer).setUint32(wal.offsetOf(start), length, true);
    assertViolation(verify(bytes), "record_length", start);
  }
});

Deno.test("WalVerifier finds a record that was verified before in the place of a newer one", () => {
  const wal = writer();
  for (let i = 0; i < 4; i++) wal.record(64);
  const bytes = wal.bytes();
  const [, second = PLACE.start, third = PLACE.start] = wal.records;
  bytes.copyWithin(wal.offsetOf(third), wal.offsetOf(second), wal.offsetOf(third));
  assertViolation(verify(bytes), "prev_link", third);
});

Deno.test("WalVerifier compares all of the link to the previous record, checksum or not", () => {
  for (const index of [0, 2]) { // the first record of all, whose link must only lead back, and one in the middle
    const wal = writer();
    for (let i = 0; i < 4; i++) wal.record(64);
    const start = wal.records[index] ?? PLACE.start;
    const bytes = wal.bytes();
    const offset = wal.offsetOf(start);
    const record = bytes.subarray(offset, offset + 64);
    record[12] = (record[12] ?? 0) ^ 8;
    const crc = crc32c(record.subarray(0, 20), crc32c(record.subarray(24)));
    new DataView(bytes.buffer).setUint32(offset + 20, crc, true);
    assertViolation(verify(bytes), "prev_link", start);
  }
});

Deno.test("WalVerifier says what it cannot check at the head, and checks it when fed the segment before", () => {
  const wal = writer();
  wal.fillSegment(48);
  const spanning = wal.record(2 * MIB + 5000);
  const after = wal.record(60);
  wal.record(60);
  const from = lsnAdd(PLACE.start, MIB);
  const tail = wal.bytes().subarray(MIB);
  const late = verify(tail, { start: from });
  assert.equal(late.verifier.violation, undefined);
  assert.equal(late.verifier.verified, wal.position);
  assert.equal(late.verdicts.at(0)?.uncheckedHeadEnd, lsnAdd(from, MIB));
  assert.equal(late.verdicts.at(0)?.openRecord, undefined);
  const headEnd = late.verdicts.at(-1)?.uncheckedHeadEnd ?? PLACE.start;
  assert.ok(headEnd <= after && headEnd > after - 8n);
  assert.equal(late.verdicts.at(-1)?.firstRecord, after);
  assert.equal(late.verdicts.at(-1)?.records, 2);
  wal.fillSegment(0);
  const later = verify(wal.bytes().subarray(MIB), { start: from });
  assert.equal(later.verdicts.at(-1)?.uncheckedHeadEnd, headEnd);
  wal.record(60);
  const latest = verify(wal.bytes().subarray(MIB), { start: from });
  assert.equal(latest.verdicts.at(-1)?.uncheckedHeadEnd, undefined);

  const inside = verify(wal.bytes()).verdicts[1];
  assert.deepEqual(
    [inside?.records, inside?.firstRecord, inside?.lastRecord, inside?.openRecord],
    [0, undefined, undefined, spanning],
  );

  tail[100] = (tail[100] ?? 0) ^ 1;
  assert.equal(verify(tail, { start: from }).verifier.violation, undefined);
  const whole = wal.bytes();
  whole.set(tail, MIB);
  assertViolation(verify(whole), "crc", spanning);
});

Deno.test("WalVerifier passes a head without waiting for the record behind it", () => {
  const start = lsnAdd(PLACE.start, MIB);
  for (const size of [300, 304]) {
    const wal = writer();
    wal.fillSegment(48);
    wal.record(size);
    const { verifier } = verify(wal.bytes().subarray(MIB), { start });
    assert.equal(verifier.verified, wal.position);
  }
});

Deno.test("WalVerifier refuses a head longer than any record", () => {
  const wal = writer();
  wal.fillSegment(48);
  wal.record(300);
  const start = lsnAdd(PLACE.start, MIB);
  const bytes = wal.bytes().slice(MIB);
  new DataView(bytes.buffer).setUint32(16, 1 << 30, true);
  assertViolation(verify(bytes, { start }), "record_length", start);
});

Deno.test("WalVerifier passes whatever fills a segment after a switch", () => {
  const wal = writer();
  wal.record(60);
  const start = wal.record(60);
  wal.switchSegment();
  wal.record(60);
  assertClean(wal, verify(wal.bytes()));
  const bytes = wal.bytes();
  bytes.fill(0xaa, wal.offsetOf(start) + 64 + 24, MIB);
  assertClean(wal, verify(bytes));
  const partial = verify(wal.bytes().subarray(0, 3 * PAGE + 5));
  assert.equal(partial.verifier.verified, lsnAdd(PLACE.start, 3 * PAGE + 5));
});

Deno.test("WalVerifier passes a switch that ends with its segment, and one that begins in the segment before", () => {
  for (const left of [24, 16]) {
    const wal = writer();
    wal.fillSegment(left);
    wal.switchSegment();
    wal.record(60);
    assertClean(wal, verify(wal.bytes()));
  }
});

Deno.test("WalVerifier accepts a torn record only when the next one says that it overwrites this one", () => {
  const wal = writer();
  wal.record(60);
  const torn = wal.tear(3 * PAGE);
  wal.record(60);
  assertClean(wal, verify(wal.bytes()));
  const page = lsnAdd(PLACE.start, PAGE);
  const record = lsnAdd(page, 24);
  assertViolation(flipped(wal, lsnAdd(page, 2), 8), "continuation", page);
  assertViolation(flipped(wal, lsnAdd(record, 16), 0x10), "overwrite", record);
  assertViolation(flipped(wal, lsnAdd(record, 26), 8), "overwrite", record);
  assertViolation(flipped(wal, lsnAdd(record, 36), 8), "crc", record);
  assert.ok(flipped(wal, record, 8).verifier.verified <= torn);
});

Deno.test("WalVerifier stays before a torn record until its successor is verified", () => {
  const wal = writer();
  wal.record(60);
  const torn = wal.tear(3 * PAGE);
  const bytes = wal.bytes();
  const { verifier } = verify(bytes.subarray(0, PAGE + 24));
  assert.equal(verifier.verified, torn);
  assert.equal(verifier.verdict().openRecord, undefined);
  verifier.feed(bytes.subarray(PAGE + 24, bytes.length - 8));
  assert.equal(verifier.verified, torn);
  verifier.feed(bytes.subarray(bytes.length - 8));
  assert.equal(verifier.verified, wal.position);
});

Deno.test("WalVerifier begins at a page that overwrites what it has not seen, or in what is overwritten", () => {
  const start = lsnAdd(PLACE.start, MIB);
  for (const pages of [0, 1, 2]) {
    const wal = writer();
    wal.fillSegment(48);
    wal.tear(5 * PAGE, { pages });
    wal.record(60);
    const { verifier } = verify(wal.bytes().subarray(MIB), { start });
    assert.equal(verifier.violation, undefined);
    assert.equal(verifier.verified, wal.position);
    const headEnd = pages === 0 ? undefined : lsnAdd(start, pages * PAGE);
    assert.equal(verifier.verdict().uncheckedHeadEnd, headEnd);
    if (pages > 0) continue;
    const unflagged = wal.bytes().slice(MIB);
    unflagged[2] = (unflagged[2] ?? 0) ^ 8;
    assertViolation(verify(unflagged, { start }), "overwrite", lsnAdd(start, 40));
  }
});

Deno.test("WalVerifier refuses an ordinary record in the place of a torn one", () => {
  const wal = writer();
  wal.fillSegment(48);
  wal.tear(3 * PAGE, { next: "silent" });
  const next = wal.record(60);
  assertViolation(verify(wal.bytes()), "overwrite", next);
  const start = lsnAdd(PLACE.start, MIB);
  assertViolation(verify(wal.bytes().subarray(MIB), { start }), "overwrite", next);
});

Deno.test("WalVerifier knows the timeline of every page from the history, and without it only the order", () => {
  const wal = writer();
  wal.record(PAGE);
  const switchPoint = wal.record(100);
  wal.timeline = timelineId(3);
  wal.record(2 * PAGE);
  wal.record(MIB);
  const verdict = (timeline: number, history?: ReadonlyArray<readonly [number, Lsn]>) =>
    verify(wal.bytes(), {
      timeline: timelineId(timeline),
      ...(history && {
        history: history.map(([id, end]) => ({ timeline: timelineId(id), switchPoint: end })),
      }),
    });
  assertClean(wal, verdict(3, [[1, switchPoint]]));
  assertClean(wal, verdict(3));
  const second = lsnAdd(PLACE.start, 2 * PAGE);
  assertViolation(verdict(3, []), "timeline", PLACE.start);
  assertViolation(verdict(3, [[2, switchPoint]]), "timeline", PLACE.start);
  assertViolation(verdict(3, [[1, lsnAdd(second, 1)]]), "timeline", second);
  assertViolation(verdict(2), "timeline", second);
  assertClean(wal, verdict(3, [[1, second]])); // a switch at the very start of a page
  // Back to the old timeline: refused in either way.
  wal.timeline = ONE as TimelineId;
  const back = wal.position;
  wal.record(2 * PAGE);
  const page = lsnAdd(PLACE.start, Math.ceil(wal.offsetOf(back) / PAGE) * PAGE);
  assertViolation(verdict(3), "timeline", page);
  assertViolation(verdict(3, [[1, switchPoint]]), "timeline", page);
});

Deno.test("WalVerifier takes zeros for the end of WAL, and anything behind them for a hole", () => {
  const wal = writer();
  wal.record(60);
  wal.record(61);
  const end = wal.position;
  const bytes = new Uint8Array(2 * MIB);
  bytes.set(wal.bytes());
  const clean = verify(bytes);
  assert.equal(clean.verifier.violation, undefined);
  assert.equal(clean.verifier.verified, end);
  assert.deepEqual(clean.verdicts.map((v) => v.zerosFrom), [end, end]);
  for (const offset of [wal.bytes().length + 9, 3 * PAGE, MIB, 2 * MIB - 1]) {
    const holed = bytes.slice();
    holed[offset] = 1;
    const outcome = verify(holed);
    const kind = offset < PAGE ? "record_length" : "hole";
    assertViolation(outcome, kind, end, `offset ${offset}`);
    assert.equal(outcome.verifier.verified, end);
  }
});

Deno.test("WalVerifier takes zero pages inside a record for the end of WAL, and remembers the record", () => {
  const wal = writer();
  wal.record(60);
  const open = wal.record(5 * PAGE);
  const bytes = wal.bytes().fill(0, 2 * PAGE);
  const { verifier } = verify(bytes);
  assert.equal(verifier.verified, open);
  assert.equal(verifier.verdict().openRecord, open);
  assert.equal(verifier.verdict().zerosFrom, lsnAdd(PLACE.start, 2 * PAGE));
  bytes.set(wal.bytes().subarray(3 * PAGE), 3 * PAGE);
  assertViolation(verify(bytes), "hole", lsnAdd(PLACE.start, 2 * PAGE));
});

Deno.test("WalVerifier keeps its first violation and counts on", () => {
  const wal = mixedWal();
  const bytes = wal.bytes();
  bytes[110] = (bytes[110] ?? 0) ^ 1;
  const { verifier, verdicts } = verify(bytes);
  assert.equal(verifier.position, wal.position);
  assert.equal(verifier.verified, PLACE.start + 104n); // the first record
  for (const verdict of verdicts) assert.deepEqual(verdict.violation, verifier.violation);
  assert.deepEqual(verdicts.map((v) => v.records), [1, 0, 0, 0]);
});

Deno.test("WalVerifier refuses WAL of another system, segment size or PostgreSQL", () => {
  const wal = mixedWal();
  assertViolation(verify(wal.bytes(), { systemId: "1" }), "system_id", PLACE.start);
  const large = { segmentSizeBytes: 2 * MIB };
  assertViolation(verify(wal.bytes(), large), "segment_size", PLACE.start);
  for (const [magic, major] of [[0xd110, 15], [0xd113, 16], [0xd116, 17], [0xd118, 18]] as const) {
    const known = writer({ magic });
    known.record(60);
    assert.equal(verify(known.bytes()).verifier.major, major);
    assertClean(known, verify(known.bytes(), { major }));
    assertViolation(verify(known.bytes(), { major: 33 - major }), "page_magic", PLACE.start);
  }
  const unknown = writer({ magic: 0xd10d });
  unknown.record(60);
  assertViolation(verify(unknown.bytes()), "page_magic", PLACE.start);
});

Deno.test("WalVerifier survives anything, in one pass and bounded by its input", () => {
  const wal = mixedWal().bytes();
  for (let seed = 1; seed <= 60; seed++) {
    const random = new SeededRandom(seed);
    const bytes = seed % 2 === 0 ? random.bytes(3 * PAGE) : wal.slice(0, 4 * PAGE);
    for (let i = 0; i < 20; i++) {
      bytes[random.integer(0, bytes.length - 1)] = random.integer(0, 255);
    }
    if (seed % 2 === 0) bytes.set(wal.subarray(0, 40)); // past the first header
    const verifier = new WalVerifier(PLACE);
    for (let at = 0; at < bytes.length;) {
      const step = random.integer(1, PAGE);
      verifier.feed(bytes.subarray(at, at + step));
      at += step;
    }
    assert.equal(verifier.position, lsnAdd(PLACE.start, bytes.length), `seed ${seed}`);
    assert.ok(verifier.verified < verifier.position, `seed ${seed}`);
  }
});
