/**
 * The queue never holds more than its bounds, wakes everybody who waits, and delivers in order.
 *
 * @module
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { AssertionFailure } from "./assert.ts";
import { ByteQueue, type ByteQueueLimits } from "./byte_queue.ts";
import { AppError, isKind } from "./failure.ts";

const REASON = new AppError("cancelled", "Stop");
const LIMITS: ByteQueueLimits = { bytesMax: 10, itemsMax: 3 };
const { signal } = new AbortController();

function textQueue(limits = LIMITS): ByteQueue<string> {
  return new ByteQueue<string>(limits, (item) => item.length);
}

/** "waiting" while a promise is pending after all microtasks have run. */
async function stateOf(promise: Promise<unknown>): Promise<string> {
  const turn = new Promise<string>((resolve) => queueMicrotask(() => resolve("waiting")));
  for (let i = 0; i < 20; i++) await Promise.resolve();
  return await Promise.race([promise.then(() => "done", () => "failed"), turn.then((s) => s)]);
}

Deno.test("ByteQueue delivers in order and counts bytes and items", async () => {
  const queue = textQueue();
  assert.ok(queue.tryPush("ab"));
  await queue.push("c", { signal });
  assert.deepEqual([queue.bytes, queue.length], [3, 2]);
  assert.equal(await queue.take({ signal }), "ab");
  assert.deepEqual([queue.bytes, queue.length], [1, 1]);
  assert.deepEqual(await queue.takeAll({ signal }), ["c"]);
  assert.deepEqual([queue.bytes, queue.length], [0, 0]);
});

Deno.test("ByteQueue is full by bytes exactly above its bound, and by items", () => {
  const bytes = textQueue();
  assert.ok(bytes.tryPush("12345") && bytes.tryPush("67890"));
  assert.equal(bytes.tryPush("1"), false);
  const items = textQueue();
  for (const item of ["a", "b", "c"]) assert.ok(items.tryPush(item));
  assert.equal(items.tryPush(""), false);
});

Deno.test("ByteQueue lets an item in alone that is larger than the whole bound", async () => {
  const queue = textQueue();
  assert.ok(queue.tryPush("123456789012"));
  assert.equal(queue.tryPush("1"), false);
  assert.equal(await queue.take({ signal }), "123456789012");
  assert.ok(queue.tryPush("1"));
  assert.equal(queue.tryPush("123456789012"), false);
});

Deno.test("push() waits for room and goes on when the consumer takes", async () => {
  for (const take of ["take", "takeAll"] as const) {
    const queue = textQueue();
    await queue.push("1234567890", { signal });
    const waiting = queue.push("x", { signal });
    assert.equal(await stateOf(waiting), "waiting");
    await queue[take]({ signal });
    await waiting;
    assert.equal(queue.length, 1);
  }
});

Deno.test("take() and takeAll() wait for an item", async () => {
  const queue = textQueue();
  const one = queue.take({ signal });
  assert.equal(await stateOf(one), "waiting");
  queue.tryPush("a");
  assert.equal(await one, "a");
  const all = queue.takeAll({ signal });
  assert.equal(await stateOf(all), "waiting");
  queue.tryPush("b");
  assert.deepEqual(await all, ["b"]);
});

Deno.test("close() delivers what is queued, then ends, and wakes a waiting consumer", async () => {
  const queue = textQueue();
  queue.tryPush("a");
  queue.close();
  assert.equal(await queue.take({ signal }), "a");
  assert.equal(await queue.take({ signal }), undefined);
  assert.equal(await queue.takeAll({ signal }), undefined);
  const other = textQueue();
  const [one, all] = [other.take({ signal }), other.takeAll({ signal })];
  other.close();
  assert.deepEqual([await one, await all], [undefined, undefined]);
});

Deno.test("close() refuses new items, those of a waiting producer too", async () => {
  const queue = textQueue();
  queue.tryPush("1234567890");
  const waiting = queue.push("x", { signal });
  queue.close();
  await assert.rejects(waiting, (error) => isKind(error, "cancelled"));
  assert.throws(() => queue.tryPush("y"), /closed queue/);
});

Deno.test("fail() drops what is queued and throws everywhere; the first failure wins", async () => {
  const queue = textQueue();
  queue.tryPush("1234567890");
  const waiting = queue.push("x", { signal });
  queue.fail(REASON);
  queue.fail(new Error("later"));
  await assert.rejects(waiting, REASON);
  await assert.rejects(queue.take({ signal }), REASON);
  await assert.rejects(queue.takeAll({ signal }), REASON);
  assert.throws(() => queue.tryPush("y"), REASON);
  assert.deepEqual([queue.bytes, queue.length], [0, 0]);
});

Deno.test("an abort ends the wait of producer and consumer and changes nothing", async () => {
  const queue = textQueue();
  const controller = new AbortController();
  const taking = queue.take({ signal: controller.signal });
  const takingAll = queue.takeAll({ signal: controller.signal });
  controller.abort(REASON);
  await assert.rejects(taking, REASON);
  await assert.rejects(takingAll, REASON);
  queue.tryPush("1234567890");
  const second = new AbortController();
  const pushing = queue.push("x", { signal: second.signal });
  second.abort(REASON);
  await assert.rejects(pushing, REASON);
  await assert.rejects(queue.push("y", { signal: second.signal }), REASON);
  await assert.rejects(queue.take({ signal: second.signal }), REASON);
  assert.deepEqual(await queue.takeAll({ signal }), ["1234567890"]);
});

Deno.test("limits that let nothing in are a bug", () => {
  assert.throws(() => textQueue({ bytesMax: 0, itemsMax: 1 }), AssertionFailure);
  assert.throws(() => textQueue({ bytesMax: 1, itemsMax: 0 }), AssertionFailure);
});

Deno.test("property: several producers and one consumer lose and reorder nothing, within the bounds", async () => {
  const streams = fc.array(fc.array(fc.nat(15), { maxLength: 20 }), { minLength: 1, maxLength: 4 });
  const bounds = fc.record({
    bytesMax: fc.integer({ min: 1, max: 20 }),
    itemsMax: fc.integer({ min: 1, max: 5 }),
  });
  await fc.assert(
    fc.asyncProperty(streams, bounds, fc.boolean(), async (inputs, limits, greedy) => {
      const queue = new ByteQueue<{ from: number; size: number }>(limits, (item) => item.size);
      const producers = Promise.all(inputs.map(async (sizes, from) => {
        for (const size of sizes) {
          await queue.push({ from, size }, { signal });
          assert.ok(queue.length <= limits.itemsMax);
          assert.ok(queue.bytes <= limits.bytesMax || queue.length === 1);
        }
      })).then(() => queue.close());
      const outputs: number[][] = inputs.map(() => []);
      for (;;) {
        const one = greedy ? undefined : await queue.take({ signal });
        const items = greedy ? await queue.takeAll({ signal }) : one && [one];
        if (items === undefined) break;
        for (const { from, size } of items) outputs[from]?.push(size);
      }
      await producers;
      assert.deepEqual(outputs, inputs);
      assert.equal(queue.bytes, 0);
    }),
  );
});
