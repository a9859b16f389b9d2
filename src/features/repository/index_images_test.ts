/**
 * Many images against a plain map, and the bounds of merging.
 *
 * @module
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { encodeIndex, type IndexEntry, IndexImage, supersedes } from "../../codec/kopia/index.ts";
import { IndexImages, MERGED_ENTRIES_MAX } from "./index_images.ts";

function idOf(n: number): string {
  return (n % 3 === 0 ? "m" : "") + n.toString(16).padStart(32, "0");
}

function entryOf(n: number, change: Partial<IndexEntry> = {}): IndexEntry {
  return {
    id: idOf(n),
    timestampSeconds: 1000,
    packBlobId: "p1",
    packOffset: 32,
    packedLength: 10,
    originalLength: 10,
    deleted: false,
    compression: 0,
    formatVersion: 3,
    encryptionKeyId: 0,
    ...change,
  };
}

const IDS = 40;

const images = fc.array(
  fc.uniqueArray(
    fc.record({
      n: fc.nat(IDS - 1),
      timestampSeconds: fc.integer({ min: 1000, max: 1003 }),
      deleted: fc.boolean(),
      packBlobId: fc.constantFrom("p1", "p2", "p3"),
    }),
    { selector: ({ n }) => n, minLength: 1, maxLength: 12 },
  ),
  { maxLength: 12 },
);

Deno.test("IndexImages finds what a plain map with the merging rule holds", () => {
  fc.assert(fc.property(images, fc.nat(12), (lists, atOnce) => {
    const merged = new IndexImages();
    const plain = new Map<string, IndexEntry>();
    const first: IndexImage[] = [];
    for (const [i, list] of lists.entries()) {
      const entries = list.map(({ n, ...change }) => entryOf(n, change));
      const image = new IndexImage(encodeIndex(entries));
      if (i < atOnce) first.push(image);
      else merged.add(image);
      for (const entry of entries) {
        const known = plain.get(entry.id);
        if (known === undefined || supersedes(entry, known)) plain.set(entry.id, entry);
      }
    }
    merged.addAll(first);
    for (let n = 0; n < IDS; n++) assert.deepEqual(merged.find(idOf(n)), plain.get(idOf(n)));
    const byId = (a: IndexEntry, b: IndexEntry) => (a.id < b.id ? -1 : 1);
    assert.deepEqual(
      merged.withPrefix("m").sort(byId),
      [...plain.values()].filter((e) => e.id.startsWith("m")).sort(byId),
    );
  }));
});

Deno.test("IndexImages keeps few images of many flushes", () => {
  const merged = new IndexImages();
  for (let n = 0; n < 500; n++) merged.add(new IndexImage(encodeIndex([entryOf(n)])));
  assert.equal(merged.count, 500);
  assert.ok(merged.imageCount <= 10, `${merged.imageCount} images`);
  assert.equal(merged.find(idOf(250))?.id, idOf(250));
});

Deno.test("IndexImages leaves images alone that would be too big together", () => {
  const big = (first: number) =>
    new IndexImage(
      encodeIndex(Array.from({ length: MERGED_ENTRIES_MAX / 2 + 1 }, (_, i) => entryOf(first + i))),
    );
  const merged = new IndexImages();
  merged.add(big(0));
  merged.add(big(1_000_000));
  assert.equal(merged.imageCount, 2);
  const together = new IndexImages();
  together.addAll([big(0), big(1_000_000)]);
  assert.equal(together.imageCount, 2);
  merged.add(new IndexImage(encodeIndex([entryOf(0, { timestampSeconds: 2000 })])));
  assert.equal(merged.find(idOf(0))?.timestampSeconds, 2000);
  assert.equal(merged.find(idOf(1_000_001))?.timestampSeconds, 1000);
});
