/**
 * Signals unhook from their parents, deadlines are distinct from cancels, and late results are given back exactly once.
 *
 * @module
 */

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { abortable, deadline, linkSignals } from "./abort.ts";
import { AssertionFailure } from "./assert.ts";
import { AppError } from "./failure.ts";

const REASON = new AppError("cancelled", "Stop");

function hooks(signal: AbortSignal): number {
  return getEventListeners(signal, "abort").length;
}

Deno.test("linkSignals() aborts with the untouched reason of whichever parent aborts", () => {
  const [a, b] = [new AbortController(), new AbortController()];
  using linked = linkSignals(a.signal, b.signal);
  assert.equal(linked.signal.aborted, false);
  b.abort(REASON);
  assert.equal(linked.signal.reason, REASON);
  a.abort(new Error("too late"));
  assert.equal(linked.signal.reason, REASON);
});

Deno.test("linkSignals() is aborted from the start by an aborted parent", () => {
  const fine = new AbortController();
  using linked = linkSignals(fine.signal, AbortSignal.abort(REASON));
  assert.equal(linked.signal.reason, REASON);
});

Deno.test("linkSignals() aborts by itself without aborting its parents", () => {
  const parent = new AbortController();
  using linked = linkSignals(parent.signal);
  linked.abort(REASON);
  assert.equal(linked.signal.reason, REASON);
  assert.equal(parent.signal.aborted, false);
});

Deno.test("linkSignals() leaves no listener on its parents after disposal, and disposal may repeat", () => {
  const parent = new AbortController();
  const linked = linkSignals(parent.signal, parent.signal);
  assert.equal(hooks(parent.signal), 2);
  linked[Symbol.dispose]();
  linked[Symbol.dispose]();
  assert.equal(hooks(parent.signal), 0);
  parent.abort(REASON);
  assert.equal(linked.signal.aborted, false);
});

Deno.test("deadline() aborts with kind timeout and says what took too long", async () => {
  using linked = deadline({ timeoutMs: 1, what: "Connect to PostgreSQL" });
  const { promise, resolve } = Promise.withResolvers<void>();
  linked.signal.addEventListener("abort", () => resolve(), { once: true });
  await promise;
  assert.ok(linked.signal.reason instanceof AppError);
  assert.equal(linked.signal.reason.kind, "timeout");
  assert.equal(linked.signal.reason.message, "Connect to PostgreSQL: no result within 1 ms");
});

Deno.test("deadline() passes the parent's abort on and leaves neither timer nor listener", () => {
  const parent = new AbortController();
  {
    using linked = deadline({ signal: parent.signal, timeoutMs: 60_000, what: "Wait" });
    parent.abort(REASON);
    assert.equal(linked.signal.reason, REASON);
  }
  const quiet = new AbortController();
  deadline({ signal: quiet.signal, timeoutMs: 60_000, what: "Wait" })[Symbol.dispose]();
  assert.equal(hooks(quiet.signal), 0);
});

Deno.test("deadline() refuses a time that a timer would cut to one millisecond", () => {
  assert.throws(() => deadline({ timeoutMs: 2 ** 31, what: "Wait" }), AssertionFailure);
  deadline({ timeoutMs: 2 ** 31 - 1, what: "Wait" })[Symbol.dispose]();
});

Deno.test("abortable() passes result and failure on and unhooks", async () => {
  const { signal } = new AbortController();
  assert.equal(await abortable(Promise.resolve(7), { signal }), 7);
  await assert.rejects(abortable(Promise.reject(REASON), { signal }), REASON);
  assert.equal(hooks(signal), 0);
});

Deno.test("abortable() rejects at once when aborted before, and gives the result back", async () => {
  const given: number[] = [];
  const { promise, resolve } = Promise.withResolvers<number>();
  const waiting = abortable(promise, {
    signal: AbortSignal.abort(REASON),
    giveBack: (late) => given.push(late),
  });
  await assert.rejects(waiting, REASON);
  resolve(3);
  await promise;
  assert.deepEqual(given, [3]);
});

Deno.test("abortable() rejects when aborted in the middle, and gives the late result back", async () => {
  const given: number[] = [];
  const controller = new AbortController();
  const { promise, resolve } = Promise.withResolvers<number>();
  const waiting = abortable(promise, {
    signal: controller.signal,
    giveBack: (late) => given.push(late),
  });
  controller.abort(REASON);
  await assert.rejects(waiting, REASON);
  assert.deepEqual(given, []);
  resolve(4);
  await promise;
  assert.deepEqual(given, [4]);
});

Deno.test("abortable() swallows a failure that comes after the abort", async () => {
  const controller = new AbortController();
  const { promise, reject } = Promise.withResolvers<number>();
  const waiting = abortable(promise, { signal: controller.signal });
  controller.abort(REASON);
  await assert.rejects(waiting, REASON);
  reject(new Error("nobody listens"));
  await promise.catch(() => "handled");
});

Deno.test("abortable() never hands a result out twice when both come in one turn", async () => {
  for (const resultFirst of [true, false]) {
    const taken: string[] = [];
    const controller = new AbortController();
    const { promise, resolve } = Promise.withResolvers<string>();
    const waiting = abortable(promise, {
      signal: controller.signal,
      giveBack: () => taken.push("given back"),
    });
    if (resultFirst) resolve("permit");
    controller.abort(REASON);
    if (!resultFirst) resolve("permit");
    await waiting.then((permit) => taken.push(permit), () => "aborted");
    await promise;
    assert.equal(taken.length, 1, `result first: ${resultFirst}, taken: ${taken.join()}`);
  }
});

Deno.test("abortable() keeps a result that came a turn before the abort", async () => {
  const controller = new AbortController();
  const { promise, resolve } = Promise.withResolvers<string>();
  const waiting = abortable(promise, {
    signal: controller.signal,
    giveBack: () => assert.fail("the caller has it already"),
  });
  resolve("permit");
  await promise;
  controller.abort(REASON);
  assert.equal(await waiting, "permit");
});
