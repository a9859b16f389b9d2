import assert from "node:assert/strict";
import fc from "fast-check";
import { utf8 } from "../../base/bytes.ts";
import { isKind } from "../../base/failure.ts";
import { lsn, timelineId } from "../../domain/lsn.ts";
import { decodeVerdict, encodeVerdict, type SegmentVerdict, WAL_VIOLATION_KINDS } from "./mod.ts";

const PLAIN = { noNullPrototype: true } as const;
const position = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }).map(lsn);
const optional = fc.option(position, { nil: undefined });
const verdict: fc.Arbitrary<SegmentVerdict> = fc.record({
  timeline: fc.integer({ min: 1, max: 0xffff_ffff }).map(timelineId),
  segmentSizeBytes: fc.constantFrom(1 << 20, 1 << 24, 1 << 30),
  start: position,
  sizeBytes: fc.nat(),
  records: fc.nat(),
  firstRecord: optional,
  lastRecord: optional,
  openRecord: optional,
  uncheckedHeadEnd: optional,
  zerosFrom: optional,
  violation: fc.option(
    fc.record({
      kind: fc.constantFrom(...WAL_VIOLATION_KINDS),
      position,
      seen: fc.string(),
      wanted: fc.string(),
    }, PLAIN),
    { nil: undefined },
  ),
}, PLAIN);

Deno.test("decodeVerdict() gives back what encodeVerdict() was given", () => {
  fc.assert(fc.property(verdict, (given) => {
    assert.deepEqual(decodeVerdict(encodeVerdict(given)), given);
  }));
});

Deno.test("encodeVerdict() writes positions as PostgreSQL prints them and leaves out what is not", () => {
  const document = encodeVerdict({
    timeline: timelineId(2),
    segmentSizeBytes: 1 << 24,
    start: lsn(0x1_0300_0000n),
    sizeBytes: 1 << 24,
    records: 3,
    firstRecord: lsn(0x1_0300_0028n),
    lastRecord: lsn(0x1_0300_00a0n),
    openRecord: undefined,
    uncheckedHeadEnd: undefined,
    zerosFrom: undefined,
    violation: { kind: "crc", position: lsn(0x1_0300_00e0n), seen: "1", wanted: "2" },
  });
  assert.deepEqual(JSON.parse(new TextDecoder().decode(document)), {
    timeline: 2,
    segment_size_bytes: 16777216,
    start: "1/3000000",
    size_bytes: 16777216,
    records: 3,
    first_record: "1/3000028",
    last_record: "1/30000A0",
    violation: { kind: "crc", position: "1/30000E0", seen: "1", wanted: "2" },
  });
});

Deno.test("decodeVerdict() refuses everything else as corruption", () => {
  const good =
    '{"timeline":1,"segment_size_bytes":1048576,"start":"0/0","size_bytes":0,"records":0}';
  assert.equal(decodeVerdict(utf8(good)).records, 0);
  const bad = [
    "",
    "[]",
    good.slice(0, -1),
    good.replace(":1,", ":0,"),
    good.replace('"0/0"', '"0-0"'),
    good.replace('"0/0"', "0"),
    good.replace('"records":0', '"records":-1'),
    good.replace('"records":0', '"records":0,"first_record":"x"'),
    good.replace('"records":0', '"records":0,"violation":{"kind":"new","position":"0/0"}'),
  ];
  for (const text of bad) {
    assert.throws(() => decodeVerdict(utf8(text)), (error) => isKind(error, "corruption"), text);
  }
});
