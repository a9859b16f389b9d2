/**
 * A group waits for all of its tasks, stops the siblings of the first failure and tells that failure.
 *
 * @module
 */

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { AppError, isKind } from "./failure.ts";
import { TaskGroup } from "./task_group.ts";

const REASON = new AppError("source", "Broken");
const NEVER = new AbortController().signal;

/** Ends by throwing the reason of the abort. */
function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

Deno.test("join() of an empty group ends at once", async () => {
  await using group = new TaskGroup(NEVER);
  await group.join();
});

Deno.test("join() waits for every task, those that tasks start included", async () => {
  await using group = new TaskGroup(NEVER);
  const done: string[] = [];
  group.start(async () => {
    await Promise.resolve();
    group.start(async () => {
      await Promise.resolve();
      done.push("child");
    });
    done.push("parent");
  });
  await group.join();
  assert.deepEqual(done, ["parent", "child"]);
});

Deno.test("the first failure aborts the siblings and is what join() throws", async () => {
  await using group = new TaskGroup(NEVER);
  const ended: unknown[] = [];
  group.start((signal) =>
    untilAborted(signal).catch((reason) => {
      ended.push(reason);
      throw new Error("a consequence, not the cause");
    })
  );
  group.start(() => Promise.reject(REASON));
  await assert.rejects(group.join(), REASON);
  assert.deepEqual(ended, [REASON]);
  assert.equal(group.signal.reason, REASON);
});

Deno.test("a task that throws before its first await fails like any other", async () => {
  await using group = new TaskGroup(NEVER);
  group.start(() => {
    throw REASON;
  });
  await assert.rejects(group.join(), REASON);
});

Deno.test("an abort of the parent, or of the group, reaches the tasks", async () => {
  const parent = new AbortController();
  await using byParent = new TaskGroup(parent.signal);
  byParent.start(untilAborted);
  parent.abort(REASON);
  await assert.rejects(byParent.join(), REASON);
  await using byItself = new TaskGroup(NEVER);
  byItself.start(untilAborted);
  byItself.abort(REASON);
  await assert.rejects(byItself.join(), REASON);
});

Deno.test("disposal aborts, waits for the tasks, does not throw and unhooks from the parent", async () => {
  const parent = new AbortController();
  let ended: unknown;
  {
    await using group = new TaskGroup(parent.signal);
    group.start((signal) =>
      untilAborted(signal).catch(async (reason) => {
        await Promise.resolve();
        ended = reason;
        throw reason;
      })
    );
  }
  assert.ok(isKind(ended, "cancelled"));
  assert.equal(getEventListeners(parent.signal, "abort").length, 0);
  const twice = new TaskGroup(parent.signal);
  await twice[Symbol.asyncDispose]();
  await twice[Symbol.asyncDispose]();
});
