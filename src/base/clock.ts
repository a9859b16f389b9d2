/**
 * Time and randomness as ports: features never call `Date.now`, `setTimeout` or `Math.random`, so that a test owns its
 * clock and a seed replays a run. The real ones live in `adapters/process`.
 *
 * @module
 */

/** Wall clock, monotonic clock and sleep. */
export interface Clock {
  /** Milliseconds since the Unix epoch; may jump. Only for what a person reads or what is stored. */
  nowMs(): number;
  /** Milliseconds from an arbitrary origin; never jumps. For every interval and deadline. */
  monotonicMs(): number;
  /** Resolves after `ms`, or rejects with the signal's reason. */
  sleep(ms: number, options: { readonly signal: AbortSignal }): Promise<void>;
}

/** Source of random numbers and bytes. */
export interface Random {
  /** Uniform in [0, 1). For jitter and sampling, never for keys. */
  float(): number;
  /** `count` cryptographically strong random bytes, owned by the caller. */
  bytes(count: number): Uint8Array<ArrayBuffer>;
}
