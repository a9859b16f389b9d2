/**
 * WAL arithmetic for every segment size: examples from PostgreSQL, limits, and properties against a naive twin that counts segments
 * as PostgreSQL's macros do.
 *
 * @module
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { AssertionFailure } from "../base/assert.ts";
import { isKind } from "../base/failure.ts";
import {
  checkSegmentSize,
  formatLsn,
  historyName,
  lastSegmentStart,
  lsn,
  LSN_ZERO,
  lsnAdd,
  lsnDistance,
  lsnFromHalves,
  lsnHalves,
  lsnMax,
  lsnMin,
  parseLsn,
  parseWalName,
  SEGMENT_SIZE_BYTES_MAX,
  SEGMENT_SIZE_BYTES_MIN,
  segmentName,
  segmentNameStart,
  segmentOffset,
  segmentStart,
  timelineId,
} from "./lsn.ts";

const MIB = 1024 * 1024;
const SEGMENT_SIZES = Array.from({ length: 11 }, (_, power) => 2 ** power * MIB);
const MAX = 2n ** 64n - 1n;

const anyLsn = fc.bigInt({ min: 0n, max: MAX }).map(lsn);
const anyTimeline = fc.integer({ min: 1, max: 0xffff_ffff }).map(timelineId);
const anySize = fc.constantFrom(...SEGMENT_SIZES);

function isUsage(error: unknown): boolean {
  return isKind(error, "usage");
}

Deno.test("the list of segment sizes is exactly what checkSegmentSize() accepts", () => {
  assert.equal(SEGMENT_SIZES[0], SEGMENT_SIZE_BYTES_MIN);
  assert.equal(SEGMENT_SIZES.at(-1), SEGMENT_SIZE_BYTES_MAX);
  for (const size of SEGMENT_SIZES) {
    checkSegmentSize(size);
    assert.throws(() => checkSegmentSize(size + 1), isUsage);
    assert.throws(() => checkSegmentSize(size - 1), isUsage);
    assert.throws(() => checkSegmentSize(size * 1.5), isUsage);
  }
  for (const wrong of [0, -MIB, MIB / 2, 2048 * MIB, 2 ** 32, 2 ** 33, 1.5, NaN, Infinity]) {
    assert.throws(() => checkSegmentSize(wrong), isUsage, String(wrong));
  }
});

Deno.test("lsn() and lsnAdd() refuse what does not fit 64 bits", () => {
  assert.equal(lsn(MAX), MAX);
  assert.throws(() => lsn(-1n), AssertionFailure);
  assert.throws(() => lsn(MAX + 1n), AssertionFailure);
  assert.equal(lsnAdd(lsn(1n), 2), 3n);
  assert.equal(lsnAdd(lsn(1n), MAX - 1n), MAX);
  assert.throws(() => lsnAdd(lsn(MAX), 1), AssertionFailure);
});

Deno.test("lsnMax(), lsnMin() and lsnDistance() compare beyond 2^53", () => {
  const [a, b] = [lsn(2n ** 60n), lsn(2n ** 60n + 1n)];
  assert.deepEqual([lsnMax(a, b), lsnMax(b, a), lsnMin(a, b), lsnMin(b, a)], [b, b, a, a]);
  assert.deepEqual([lsnDistance(a, b), lsnDistance(b, a), lsnDistance(a, a)], [1, -1, 0]);
});

Deno.test("formatLsn() prints as PostgreSQL does", () => {
  const cases = [
    [0n, "0/0"],
    [0x3000028n, "0/3000028"],
    [0xffff_ffffn, "0/FFFFFFFF"],
    [0x1_0000_0000n, "1/0"],
    [0x16_b374_d848n, "16/B374D848"],
    [MAX, "FFFFFFFF/FFFFFFFF"],
  ] as const;
  for (const [value, text] of cases) assert.equal(formatLsn(lsn(value)), text);
});

Deno.test("parseLsn() refuses everything that PostgreSQL would not print", () => {
  assert.equal(parseLsn("0/3000028"), 0x3000028n);
  assert.equal(parseLsn("16/b374d848"), 0x16_b374_d848n);
  assert.equal(parseLsn("00000016/B374D848"), 0x16_b374_d848n);
  for (
    const text of [
      "",
      "/",
      "0",
      "0/",
      "/0",
      "0/0/0",
      "0x0/0",
      "-1/0",
      "G/0",
      " 0/0",
      "0/0\n",
      "123456789/0",
    ]
  ) {
    assert.throws(() => parseLsn(text), (error) => {
      return isUsage(error) && error instanceof Error && error.message.includes(`"${text}"`);
    }, text);
  }
});

Deno.test("property: parseLsn() gives back what formatLsn() printed", () => {
  fc.assert(fc.property(anyLsn, (position) => {
    assert.equal(parseLsn(formatLsn(position)), position);
    assert.equal(parseLsn(formatLsn(position).toLowerCase()), position);
  }));
});

Deno.test("timelineId() accepts 1 to 2^32 - 1", () => {
  assert.equal(timelineId(1), 1);
  assert.equal(timelineId(0xffff_ffff), 0xffff_ffff);
  for (const wrong of [0, -1, 1.5, NaN, 2 ** 32]) assert.throws(() => timelineId(wrong), isUsage);
});

Deno.test("names equal those that PostgreSQL gives", () => {
  const one = timelineId(1);
  // pg_walfile_name on a cluster of that segment size.
  const cases = [
    [0x1000000n, 16 * MIB, "000000010000000000000001"],
    [0x3000028n, 16 * MIB, "000000010000000000000003"],
    [0xff00_0000n, 16 * MIB, "0000000100000000000000FF"],
    [0x1_0000_0000n, 16 * MIB, "000000010000000100000000"],
    [0x3000028n, MIB, "000000010000000000000030"],
    [0xffff_ffffn, MIB, "000000010000000000000FFF"],
    [0xffff_ffffn, 1024 * MIB, "000000010000000000000003"],
    [0x1_4000_0000n, 1024 * MIB, "000000010000000100000001"],
  ] as const;
  for (const [position, size, name] of cases) {
    assert.equal(segmentName(one, lsn(position), size), name);
  }
  assert.equal(historyName(timelineId(0xa)), "0000000A.history");
});

Deno.test("property: segment arithmetic agrees with counting segments, for every size", () => {
  fc.assert(fc.property(anyLsn, anyTimeline, anySize, (position, timeline, size) => {
    const start = segmentStart(position, size);
    assert.equal(start % BigInt(size), 0n);
    assert.equal(start + BigInt(segmentOffset(position, size)), position);
    assert.ok(segmentOffset(position, size) < size);
    const number = position / BigInt(size);
    const perLogId = 0x1_0000_0000n / BigInt(size);
    const hex = (value: bigint) => value.toString(16).toUpperCase().padStart(8, "0");
    const name = segmentName(timeline, position, size);
    assert.equal(name, hex(BigInt(timeline)) + hex(number / perLogId) + hex(number % perLogId));
    assert.equal(segmentNameStart(name, size), start);
    assert.deepEqual(parseWalName(name), { kind: "segment", name, timeline, partial: false });
  }));
});

Deno.test("property: names sort like positions", () => {
  fc.assert(fc.property(anyLsn, anyLsn, anySize, (a, b, size) => {
    const [first, second] = [a, b].map((position) =>
      segmentName(timelineId(1), lsn(position), size)
    );
    assert.ok(first !== undefined && second !== undefined);
    if (segmentStart(a, size) < segmentStart(b, size)) assert.ok(first < second);
  }));
});

Deno.test("lastSegmentStart() takes the segment before an end that is a border", () => {
  for (const size of SEGMENT_SIZES) {
    const border = lsn(BigInt(size) * 5n);
    assert.equal(lastSegmentStart(border, size), BigInt(size) * 4n);
    assert.equal(lastSegmentStart(lsnAdd(border, 1), size), border);
    assert.equal(lastSegmentStart(lsn(border - 1n), size), BigInt(size) * 4n);
    assert.equal(lastSegmentStart(LSN_ZERO, size), 0n);
  }
});

Deno.test("segmentNameStart() refuses a segment number that a log id does not have", () => {
  for (const size of SEGMENT_SIZES) {
    const count = 0x1_0000_0000 / size;
    const name = (segment: number) =>
      "00000001" + "0000000A" + segment.toString(16).toUpperCase().padStart(8, "0");
    assert.equal(segmentNameStart(name(count - 1), size), 0xb_0000_0000n - BigInt(size));
    assert.throws(() => segmentNameStart(name(count), size), isUsage);
  }
});

Deno.test("parseWalName() takes every kind of name apart", () => {
  const name = "0000000A00000001000000FE";
  const timeline = timelineId(10);
  assert.deepEqual(parseWalName(name), { kind: "segment", name, timeline, partial: false });
  assert.deepEqual(parseWalName(`${name}.partial`), {
    kind: "segment",
    name,
    timeline,
    partial: true,
  });
  const label = `${name}.00000028.backup`;
  assert.deepEqual(parseWalName(label), { kind: "backup_label", name: label, timeline });
  const history = "0000000A.history";
  assert.deepEqual(parseWalName(history), { kind: "history", name: history, timeline });
});

Deno.test("parseWalName() refuses what is no WAL file name", () => {
  const wrong = [
    "",
    "00000001",
    "00000001000000000000000",
    "0000000100000000000000011",
    "00000001000000000000000a",
    "00000001000000000000000G",
    "000000000000000000000001",
    "00000000.history",
    "000000010000000000000001.history",
    "00000001.partial",
    "000000010000000000000001.partial.partial",
    "000000010000000000000001.0028.backup",
    "000000010000000000000001.00000028.backup.partial",
    "../000000010000000000000001",
    "000000010000000000000001\n",
    "000000010000000000000001/",
  ];
  for (const text of wrong) assert.throws(() => parseWalName(text), isUsage, JSON.stringify(text));
});

Deno.test("property: parseWalName() of garbage is a name or a usage error, never anything else", () => {
  const nearly = fc.stringMatching(/^[0-9A-Fa-f.\/]{0,26}(?:\.partial|\.backup|\.history)?$/);
  fc.assert(fc.property(fc.oneof(nearly, fc.string()), (text) => {
    try {
      assert.ok(text.startsWith(parseWalName(text).name));
    } catch (error) {
      assert.ok(isUsage(error), String(error));
    }
  }));
});

Deno.test("lsnHalves() and lsnFromHalves() are inverse, and the lower half may overflow", () => {
  fc.assert(fc.property(anyLsn, (position) => {
    const [high, low] = lsnHalves(position);
    assert.equal(formatLsn(position), `${high.toString(16)}/${low.toString(16)}`.toUpperCase());
    assert.equal(lsnFromHalves(high, low), position);
  }));
  assert.equal(lsnFromHalves(1, 2 ** 32), lsn(2n << 32n));
});
