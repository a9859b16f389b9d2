/**
 * Assertions stay on in production. They state what must be true on the way out and on the way back in; a failed one is
 * a bug in klio, never bad input, and on the data path it ends the process (a restart is recoverable, a wrong
 * acknowledgement is not). Bad input is an `AppError` from `failure.ts`.
 *
 * @module
 */

/** A broken invariant of klio itself. Only `cli` and `rpc` may catch it, to report and stop. */
export class AssertionFailure extends Error {
  override readonly name = "AssertionFailure";
}

/** Throws {@link AssertionFailure} unless `condition` holds. `what` is the invariant, stated as it should be. */
export function assert(condition: unknown, what: string): asserts condition {
  if (!condition) throw new AssertionFailure(`Assertion failed: ${what}`);
}

/** The end of an exhaustive `switch`: reaching it at run time is a bug. */
export function unreachable(value: never, what: string): never {
  throw new AssertionFailure(`Assertion failed: unexpected ${what} ${JSON.stringify(value)}`);
}
