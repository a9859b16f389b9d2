/**
 * The real clock and the real random source: the one place that reads `Date.now`, `performance.now`, timers and the
 * system's random generator.
 *
 * @module
 */

import type { Clock, Random } from "../../base/clock.ts";

/** Wall clock, monotonic clock and timers of this process. */
export const SYSTEM_CLOCK: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep(ms, { signal }) {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const onAbort = () => {
        clearTimeout(timer);
        reject(signal.reason);
      };
      const timer = setTimeout(() => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      }, ms);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  },
};

const RANDOM_CALL_BYTES_MAX = 65_536; // limit of crypto.getRandomValues

/** The operating system's random generator. */
export const SYSTEM_RANDOM: Random = {
  float: () => Math.random(),
  bytes(count) {
    const bytes = new Uint8Array(count);
    for (let offset = 0; offset < count; offset += RANDOM_CALL_BYTES_MAX) {
      crypto.getRandomValues(bytes.subarray(offset, offset + RANDOM_CALL_BYTES_MAX));
    }
    return bytes;
  },
};
