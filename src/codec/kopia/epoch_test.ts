import assert from "node:assert/strict";
import fc from "fast-check";
import { computeEpochState, indexBlobPrefix, indexBlobSuffix } from "./epoch.ts";

const HASH = "00".repeat(16);

/** Blobs written one millisecond after the other. */
function state(...ids: readonly string[]) {
  return computeEpochState(ids.map((id, i) => ({ id, modifiedMs: i })));
}

const xn = (epoch: number, name = "a") =>
  `${indexBlobPrefix(epoch)}${name}-${indexBlobSuffix("s01", 1)}`;
const xs = (epoch: number, set = "sx-c1", hash = HASH) => `xs${epoch}_${hash}-${set}`;
const xr = (min: number, max: number, set = "sx-c1", hash = HASH) =>
  `xr${min}_${max}_${hash}-${set}`;

Deno.test("a new repository writes to epoch 0 and its index is empty", () => {
  assert.deepEqual(state(), { writeEpoch: 0, watermarkSeconds: 0, indexBlobs: [] });
});

Deno.test("without compaction every xn blob up to the next epoch counts", () => {
  const ids = [xn(0), "xe1", xn(1), "xe2", xn(2), xn(3)];
  const { writeEpoch, indexBlobs } = state(...ids, xn(4));
  assert.equal(writeEpoch, 2);
  assert.deepEqual(indexBlobs, [xn(0), xn(1), xn(2), xn(3)]);
  assert.equal(xn(7), "xn7_a-s01-c1");
});

Deno.test("the watermark is the latest one", () => {
  assert.equal(state("xw200", "xw1000", "xw30").watermarkSeconds, 1000);
});

Deno.test("a single-epoch compaction counts once its epoch is settled", () => {
  const blobs = [xn(0), xn(1), xs(0), xs(1)];
  assert.deepEqual(state(...blobs, "xe1").indexBlobs, [xn(0), xn(1)]);
  assert.deepEqual(state(...blobs, "xe1", "xe2").indexBlobs, [xs(0), xn(1)]);
  assert.deepEqual(state(...blobs, "xe1", "xe2", "xe3").indexBlobs, [xs(0), xs(1)]);
});

Deno.test("a compaction of several shards counts only when it is complete", () => {
  const shards = [xs(0, "sy-c2", "aa"), xs(0, "sy-c2", "bb")] as const;
  assert.deepEqual(state(xn(0), shards[0], xs(0, "sz-c3"), "xe2").indexBlobs, [xn(0)]);
  assert.deepEqual(state(xn(0), ...shards, xs(0, "sz-c3"), "xe2").indexBlobs, [...shards]);
});

Deno.test("blobs that appear after their epoch was settled do not count", () => {
  assert.deepEqual(state(xn(0), "xe1", "xe2", xn(0, "late")).indexBlobs, [xn(0)]);
});

Deno.test("the chain of range checkpoints that reaches furthest replaces its epochs", () => {
  const blobs = ["xe10", ...[0, 1, 2, 3, 4, 5, 9].map((e) => xs(e)), xn(9), xn(10)];
  const rest = (from: number) => [0, 1, 2, 3, 4, 5].filter((e) => e >= from).map((e) => xs(e));
  const tail = [xn(9), xn(10)];
  assert.deepEqual(state(...blobs, xr(0, 2)).indexBlobs, [xr(0, 2), ...rest(3), ...tail]);
  for (const ranges of [[xr(0, 3), xr(0, 2), xr(3, 5)], [xr(3, 5), xr(0, 2), xr(0, 3)]]) {
    assert.deepEqual(
      state(...blobs, ...ranges).indexBlobs,
      [xr(0, 2), xr(3, 5), ...tail],
    );
  }
  assert.deepEqual(state(...blobs, xr(1, 5)).indexBlobs, [...rest(0), ...tail]);
  assert.deepEqual(state(...blobs, xr(0, 5, "sx-c2")).indexBlobs, [...rest(0), ...tail]);
});

Deno.test("foreign names are ignored and huge numbers cost nothing", () => {
  const odd = ["x", "xe", "xn_", "xnx_a", "xe1a", "xr5_a", "xr0_1", "y0_", "xs0_a", "p1"];
  assert.deepEqual(state(...odd), { writeEpoch: 0, watermarkSeconds: 0, indexBlobs: [] });
  assert.deepEqual(state("xe999999999999999", xn(0)).indexBlobs, [xn(0)]);
});

Deno.test("the index does not depend on the order of the listing", () => {
  const blobs = [xn(0), xn(1), "xe1", xn(1, "b"), "xe2", xs(0), xn(2), "xe3", xr(0, 0), "xw7"]
    .map((id, modifiedMs) => ({ id, modifiedMs }));
  const expected = [...computeEpochState(blobs).indexBlobs].sort();
  const shuffled = fc.shuffledSubarray(blobs, { minLength: blobs.length });
  fc.assert(fc.property(shuffled, (listing) => {
    assert.deepEqual([...computeEpochState(listing).indexBlobs].sort(), expected);
  }));
});
