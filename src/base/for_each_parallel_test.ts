/**
 * @module
 */

import assert from "node:assert/strict";
import { forEachParallel } from "./for_each_parallel.ts";

const WAITING = { signal: new AbortController().signal };

Deno.test("forEachParallel() runs every item once, never more than allowed at a time", async () => {
  let [running, most] = [0, 0];
  const seen: number[] = [];
  await forEachParallel([1, 2, 3, 4, 5], { ...WAITING, parallel: 2 }, async (item) => {
    most = Math.max(most, ++running);
    await Promise.resolve();
    seen.push(item);
    running--;
  });
  assert.deepEqual(seen.toSorted(), [1, 2, 3, 4, 5]);
  assert.equal(most, 2);
});

Deno.test("forEachParallel() stops at the first failure, tells the others and rethrows it", async () => {
  const reason = new Error("no");
  const started: number[] = [];
  let told: unknown;
  const run = forEachParallel([1, 2, 3, 4], { ...WAITING, parallel: 2 }, async (item, signal) => {
    started.push(item);
    if (item === 1) throw reason;
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    told = signal.reason;
  });
  await assert.rejects(run, reason);
  assert.deepEqual(started, [1, 2]);
  assert.equal(told, reason);
});

Deno.test("forEachParallel() starts nothing when aborted and nothing new after an abort", async () => {
  const controller = new AbortController();
  const reason = new Error("enough");
  const seen: number[] = [];
  const options = { signal: controller.signal, parallel: 1 };
  const action = (item: number) => {
    seen.push(item);
    controller.abort(reason);
    return Promise.resolve();
  };
  await assert.rejects(forEachParallel([1, 2], options, action), reason);
  await assert.rejects(forEachParallel([3], options, action), reason);
  assert.deepEqual(seen, [1]);
});
