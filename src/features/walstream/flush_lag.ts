/**
 * Measures the time from receiving a byte to its acknowledgement. Memory is bounded: at most {@link PENDING_MAX} positions
 * wait for their acknowledgement (beyond that the youngest one is stretched, which can only make the measured time
 * longer), and the latest {@link SAMPLES_MAX} times are kept.
 *
 * @module
 */

import type { Lsn } from "../../domain/lsn.ts";
import type { FlushLag } from "./types.ts";

/** See the module comment. */
export const PENDING_MAX = 4096;
/** See the module comment. */
export const SAMPLES_MAX = 1024;

interface Pending {
  end: Lsn;
  readonly receivedMs: number;
}

/** See the module comment. Times come from a monotonic clock. */
export class FlushLagMeter {
  /** In order of `end`. Taken from the front by index, so that taking is cheap. */
  #pending: Pending[] = [];
  #first = 0;
  readonly #samples: number[] = [];
  #nextSample = 0;

  /** Bytes up to `end` have been received. */
  received(end: Lsn, nowMs: number): void {
    const last = this.#pending.at(-1);
    if (last !== undefined && this.#pending.length - this.#first >= PENDING_MAX) last.end = end;
    else this.#pending.push({ end, receivedMs: nowMs });
  }

  /** Bytes up to `position` are durable. */
  durable(position: Lsn, nowMs: number): void {
    for (;;) {
      const pending = this.#pending[this.#first];
      if (pending === undefined || pending.end > position) break;
      this.#first++;
      this.#samples[this.#nextSample] = nowMs - pending.receivedMs;
      this.#nextSample = (this.#nextSample + 1) % SAMPLES_MAX;
    }
    if (this.#first >= PENDING_MAX || this.#first === this.#pending.length) {
      this.#pending = this.#pending.slice(this.#first);
      this.#first = 0;
    }
  }

  /** What is not acknowledged will be received again, later. */
  forget(): void {
    this.#pending = [];
    this.#first = 0;
  }

  /** The distribution now; all zero without samples. */
  get lag(): FlushLag {
    const sorted = this.#samples.toSorted((a, b) => a - b);
    const at = (share: number) => sorted[Math.ceil(sorted.length * share) - 1] ?? 0;
    return { samples: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99) };
  }
}
