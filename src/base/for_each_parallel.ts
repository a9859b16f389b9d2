/**
 * Runs an action over items, a bounded number at a time. The first failure aborts the others, all are awaited, and that
 * failure is rethrown.
 *
 * @module
 */

import type { Waiting } from "./abort.ts";
import { assert } from "./assert.ts";
import { TaskGroup } from "./task_group.ts";

/** See the module comment. The action's signal aborts when the caller's does or when another action failed. */
export async function forEachParallel<T>(
  items: Iterable<T>,
  options: Waiting & { readonly parallel: number },
  action: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  assert(options.parallel >= 1, "at least one action runs at a time");
  options.signal.throwIfAborted();
  await using group = new TaskGroup(options.signal);
  const rest = items[Symbol.iterator]();
  const work = async (signal: AbortSignal) => {
    for (;;) {
      signal.throwIfAborted();
      const next = rest.next();
      if (next.done === true) return;
      await action(next.value, signal);
    }
  };
  for (let i = 0; i < options.parallel; i++) group.start(work);
  await group.join();
}
