import assert from "node:assert/strict";
import { ByteBudget } from "./byte_budget.ts";

const waiting = { signal: new AbortController().signal };

Deno.test("ByteBudget waits while bytes or items are used up", async () => {
  const budget = new ByteBudget({ bytesMax: 10, itemsMax: 2 });
  await budget.acquire(6, waiting);
  let entered = false;
  const second = budget.acquire(5, waiting).then(() => entered = true);
  await Promise.resolve();
  assert.equal(entered, false);
  budget.release(6);
  await second;
  assert.equal(budget.bytes, 5);
  await budget.acquire(1, waiting);
  let third = false;
  const byCount = budget.acquire(1, waiting).then(() => third = true);
  await Promise.resolve();
  assert.equal(third, false);
  budget.release(1);
  await byCount;
});

Deno.test("ByteBudget lets something too large in alone", async () => {
  const budget = new ByteBudget({ bytesMax: 10, itemsMax: 2 });
  await budget.acquire(100, waiting);
  const next = budget.acquire(1, waiting);
  budget.release(100);
  await next;
  assert.equal(budget.bytes, 1);
});

Deno.test("ByteBudget fails waiters with the first failure and stops them on abort", async () => {
  const budget = new ByteBudget({ bytesMax: 10, itemsMax: 2 });
  await budget.acquire(10, waiting);
  const controller = new AbortController();
  const aborted = budget.acquire(1, { signal: controller.signal });
  controller.abort(new Error("stop"));
  await assert.rejects(aborted, /stop/);
  const failed = budget.acquire(1, waiting);
  budget.fail(new Error("first"));
  budget.fail(new Error("second"));
  await assert.rejects(failed, /first/);
  await assert.rejects(budget.acquire(1, waiting), /first/);
});

Deno.test("ByteBudget serves in order of arrival, and an abort makes way", async () => {
  const budget = new ByteBudget({ bytesMax: 10, itemsMax: 10 });
  await budget.acquire(8, waiting);
  const entered: string[] = [];
  const controller = new AbortController();
  const large = budget.acquire(9, { signal: controller.signal }).then(() => entered.push("large"));
  const small = budget.acquire(2, waiting).then(() => entered.push("small"));
  await Promise.resolve();
  assert.deepEqual(entered, []);
  controller.abort(new Error("stop"));
  await assert.rejects(large, /stop/);
  await small;
  assert.deepEqual(entered, ["small"]);
  assert.equal(budget.bytes, 10);
});

Deno.test("ByteBudget keeps the room of one that is aborted when it had it already", async () => {
  const budget = new ByteBudget({ bytesMax: 10, itemsMax: 10 });
  await budget.acquire(10, waiting);
  const controller = new AbortController();
  const next = budget.acquire(5, { signal: controller.signal });
  budget.release(10);
  controller.abort(new Error("too late"));
  await next;
  assert.equal(budget.bytes, 5);
});
