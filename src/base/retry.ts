/**
 * The one retry helper: a total deadline, capped exponential back-off with full jitter, a predicate on the failure, one
 * log line on the first failure and one on recovery. Retry at one layer only.
 *
 * @module
 */

import type { Clock, Random } from "./clock.ts";
import { failureKind, FAILURES } from "./failure.ts";
import type { Logger } from "./log.ts";

/** Shape of the waiting times. */
export interface Backoff {
  readonly firstMs: number;
  readonly maxMs: number;
}

/** Full-jitter back-off: uniform in [half, whole] of the doubled, capped delay. `attempt` counts from 0. */
export function backoffMs(backoff: Backoff, attempt: number, random: Random): number {
  const whole = Math.min(backoff.maxMs, backoff.firstMs * 2 ** Math.min(attempt, 30));
  return whole / 2 + (whole / 2) * random.float();
}

/** True for kinds that the failure table advises to try again. */
export function isRetryable(error: unknown): boolean {
  const advice = FAILURES[failureKind(error)].retry;
  return advice === "yes" || advice === "reconnect" || advice === "after_relief";
}

/** Options of {@link retry}. */
export interface RetryOptions {
  readonly what: string;
  readonly totalMs: number;
  readonly backoff: Backoff;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly retryable?: (error: unknown) => boolean;
}

/** Runs `action` until it succeeds, fails for good, or `totalMs` have passed; then throws the last failure. */
export async function retry<T>(action: () => Promise<T>, options: RetryOptions): Promise<T> {
  const { clock, log, what } = options;
  const retryable = options.retryable ?? isRetryable;
  const startMs = clock.monotonicMs();
  for (let attempt = 0;; attempt++) {
    options.signal.throwIfAborted();
    try {
      const result = await action();
      if (attempt > 0) log.info("Recovered after retrying", { what, attempts: attempt + 1 });
      return result;
    } catch (error) {
      const waitMs = backoffMs(options.backoff, attempt, options.random);
      const elapsedMs = clock.monotonicMs() - startMs;
      if (!retryable(error) || elapsedMs + waitMs > options.totalMs) throw error;
      if (attempt === 0) log.warn("Failed, retrying", { what }, error);
      await clock.sleep(waitMs, { signal: options.signal });
    }
  }
}
