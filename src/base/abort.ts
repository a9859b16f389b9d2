/**
 * Abort and deadline helpers. Everything that waits takes a signal; these helpers link signals without leaking listeners
 * onto long-lived parents (an `AbortSignal.any` with a listener left on it stays reachable from its parent: about 1.1 KB
 * apiece) and keep timeout and cancel distinct: the abort reason is passed on untouched.
 *
 * @module
 */

import { assert } from "./assert.ts";
import { AppError } from "./failure.ts";

/** A signal with the means to end it; disposing unhooks it from its parents and clears its timer. */
export interface LinkedSignal extends Disposable {
  readonly signal: AbortSignal;
  abort(reason: unknown): void;
}

/** Options of everything that waits. */
export interface Waiting {
  readonly signal: AbortSignal;
}

/** A controller that aborts when any parent does. */
export function linkSignals(...parents: readonly AbortSignal[]): LinkedSignal {
  const controller = new AbortController();
  const unhook: Array<() => void> = [];
  for (const parent of parents) {
    if (parent.aborted) {
      controller.abort(parent.reason);
      break;
    }
    const onAbort = () => controller.abort(parent.reason);
    parent.addEventListener("abort", onAbort, { once: true });
    unhook.push(() => parent.removeEventListener("abort", onAbort));
  }
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    [Symbol.dispose]() {
      for (const f of unhook.splice(0)) f();
    },
  };
}

/** Parents of a {@link deadline} and what it is for. */
export interface DeadlineOptions {
  readonly signal?: AbortSignal;
  readonly timeoutMs: number;
  /** The action, for the message: `Connect to PostgreSQL`. */
  readonly what: string;
}

/** Longest delay of a timer: anything above would end at once. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** A signal that aborts with an {@link AppError} of kind `timeout` after `timeoutMs`, or when its parent does. */
export function deadline(options: DeadlineOptions): LinkedSignal {
  assert(options.timeoutMs <= TIMER_MS_MAX, "a deadline fits a timer (about 24 days)");
  const linked = linkSignals(...(options.signal === undefined ? [] : [options.signal]));
  const timer = setTimeout(() => {
    linked.abort(
      new AppError("timeout", `${options.what}: no result within ${options.timeoutMs} ms`),
    );
  }, options.timeoutMs);
  return {
    signal: linked.signal,
    abort: linked.abort,
    [Symbol.dispose]() {
      clearTimeout(timer);
      linked[Symbol.dispose]();
    },
  };
}

/**
 * Waits for `promise`, or rejects with the signal's reason as soon as it aborts. A result that arrives after the abort
 * is handed to `giveBack`, so that a connection or permit is never lost.
 */
export function abortable<T>(
  promise: Promise<T>,
  options: Waiting & { readonly giveBack?: (late: T) => void },
): Promise<T> {
  const { signal, giveBack } = options;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    promise.then((result) => {
      signal.removeEventListener("abort", onAbort);
      // Decided here and nowhere else: an abort in the very turn of the result must not give both away.
      if (!signal.aborted) resolve(result);
      else giveBack?.(result);
    }, (error) => {
      signal.removeEventListener("abort", onAbort);
      reject(error); // after an abort, which is what the caller hears of, this does nothing
    });
  });
}
