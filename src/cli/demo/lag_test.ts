import assert from "node:assert/strict";
import { percentile } from "./lag.ts";

Deno.test("percentile() is the nearest-rank value, and 0 without samples", () => {
  const samples = Array.from({ length: 100 }, (_, i) => 100 - i);
  assert.equal(percentile(samples, 99), 99);
  assert.equal(percentile(samples, 100), 100);
  assert.equal(percentile(samples, 50), 50);
  assert.equal(percentile([7], 99), 7);
  assert.equal(percentile([], 99), 0);
});
