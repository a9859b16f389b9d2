import assert from "node:assert/strict";
import fc from "fast-check";
import { concat } from "../../base/bytes.ts";
import { isKind } from "../../base/failure.ts";
import { encodeIndex, type IndexEntry, IndexImage, supersedes } from "./index.ts";

const HEADER_BYTES = 17;

function entry(number: number, change: Partial<IndexEntry> = {}): IndexEntry {
  return {
    id: number.toString(16).padStart(32, "0"),
    timestampSeconds: 1_700_000_000,
    packBlobId: "p0",
    packOffset: 32,
    packedLength: 128,
    originalLength: 100,
    deleted: false,
    compression: 0,
    formatVersion: 3,
    encryptionKeyId: 0,
    ...change,
  };
}

/** `entrySize` in the header. */
function entryBytesOf(image: Uint8Array): number {
  return image[3] ?? 0;
}

function roundTrip(entries: readonly IndexEntry[]): IndexImage {
  const image = new IndexImage(encodeIndex(entries));
  const sorted = [...entries].sort((a, b) => (a.id < b.id ? -1 : 1));
  assert.equal(image.count, entries.length);
  assert.deepEqual([...image.entries()], sorted);
  return image;
}

const anyEntries = fc.constantFrom(16, 32).chain((hashBytes) => {
  const hash = fc.uint8Array({ minLength: hashBytes, maxLength: hashBytes });
  return fc.uniqueArray(
    fc.record({
      id: fc.tuple(fc.constantFrom("", "g", "k", "m", "x", "z"), hash)
        .map(([prefix, bytes]) => prefix + bytes.toHex()),
      timestampSeconds: fc.nat({ max: 0xffff_ffff }),
      packBlobId: fc.constantFrom("p0-s1", "q1-s2", "", "p".repeat(255)),
      packOffset: fc.nat({ max: 2 ** 30 - 1 }),
      packedLength: fc.oneof(fc.nat({ max: 2 ** 24 - 1 }), fc.nat({ max: 2 ** 28 - 1 })),
      originalLength: fc.oneof(fc.nat({ max: 2 ** 24 - 1 }), fc.nat({ max: 2 ** 28 - 1 })),
      deleted: fc.boolean(),
      compression: fc.constantFrom(0, 0x1101, 0xffff_ffff),
      formatVersion: fc.constantFrom(2, 3),
      encryptionKeyId: fc.constantFrom(0, 1),
    }, { noNullPrototype: true }),
    { selector: (e) => e.id, maxLength: 40 },
  );
});

Deno.test("an index image gives back its entries, sorted, and finds each of them", () => {
  fc.assert(fc.property(anyEntries, (entries) => {
    const image = roundTrip(entries);
    for (const e of entries) assert.deepEqual(image.find(e.id), e);
    const absent = "0123456789abcdef".repeat(2);
    assert.deepEqual(image.find(absent), entries.find((e) => e.id === absent));
    assert.equal(image.find("k1234"), undefined);
  }));
});

Deno.test("an id of another hash size is not found, even when it looks like a cut one", () => {
  const image = roundTrip([entry(0)]);
  assert.equal(image.find("00"), undefined);
  assert.equal(image.find("00".repeat(32)), undefined);
});

Deno.test("entries are as small as the image allows: 16 to 19 bytes", () => {
  const two = [entry(1), entry(2, { compression: 0x1101 })];
  const packs = Array.from({ length: 65_537 }, (_, i) => entry(i, { packBlobId: `p${i}` }));
  const long = [entry(1, { packedLength: 2 ** 24 }), entry(2, { originalLength: 2 ** 28 - 1 })];
  const cases: ReadonlyArray<readonly [number, readonly IndexEntry[]]> = [
    [16, []],
    [16, [entry(1)]],
    [16, packs.slice(1)],
    [17, two],
    [18, packs],
    [19, long],
  ];
  for (const [sizeBytes, entries] of cases) {
    assert.equal(entryBytesOf(encodeIndex(entries)), sizeBytes);
    roundTrip(entries);
  }
  assert.equal(encodeIndex([entry(1)]).length, HEADER_BYTES + 17 + 16 + 5 + 6 + 2);
});

Deno.test("bytes after an image are ignored, as in the local index of a pack", () => {
  const image = new IndexImage(concat([encodeIndex([entry(1)]), new Uint8Array(32)]));
  assert.deepEqual([...image.entries()], [entry(1)]);
});

Deno.test("the base time of the header is added to each entry", () => {
  const image = encodeIndex([entry(1, { timestampSeconds: 5 })]);
  new DataView(image.buffer).setUint32(13, 1000);
  assert.equal(new IndexImage(image).find(entry(1).id)?.timestampSeconds, 1005);
});

Deno.test("a cut, unsorted or repeated image is corruption", () => {
  const bytes = encodeIndex([entry(1), entry(2)]);
  const refused = (image: Uint8Array) =>
    assert.throws(
      () => [...new IndexImage(image).entries()],
      (e) => isKind(e, "corruption"),
    );
  for (let end = 0; end < bytes.length; end++) refused(bytes.subarray(0, end));
  refused(bytes.with(HEADER_BYTES + 16, 9));
  refused(bytes.with(HEADER_BYTES + 16, 2));
  refused(bytes.with(HEADER_BYTES, 0x61));
});

Deno.test("an image of garbage gives only corruption", () => {
  const valid = encodeIndex([entry(1), entry(2, { compression: 1, packBlobId: "p1" })]);
  const damaged = fc.array(fc.tuple(fc.nat({ max: valid.length - 1 }), fc.nat({ max: 255 })), {
    minLength: 1,
    maxLength: 6,
  }).map((changes) => {
    const bytes = valid.slice();
    for (const [at, value] of changes) bytes[at] = value;
    return bytes;
  });
  fc.assert(
    fc.property(fc.oneof(damaged, fc.uint8Array({ maxLength: 200 })), (bytes) => {
      try {
        const image = new IndexImage(bytes);
        image.find(entry(1).id);
        for (const e of image.entries()) assert.ok(e.packOffset < 2 ** 30);
      } catch (error) {
        assert.ok(isKind(error, "corruption"), String(error));
      }
    }),
    { numRuns: 1000 },
  );
});

Deno.test("supersedes(): later wins, then live over deleted, then the larger pack name", () => {
  const old = entry(1);
  const ranked = [
    old,
    entry(1, { timestampSeconds: old.timestampSeconds + 1, deleted: true }),
    entry(1, { timestampSeconds: old.timestampSeconds + 1 }),
    entry(1, { timestampSeconds: old.timestampSeconds + 1, packBlobId: "p1" }),
  ];
  for (const [i, a] of ranked.entries()) {
    for (const [j, b] of ranked.entries()) assert.equal(supersedes(a, b), i > j);
  }
});
