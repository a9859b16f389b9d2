/**
 * A {@link Clock} that a test owns: time stands still until `advance`. Sleepers wake in the order of their deadlines, and
 * at each deadline `nowMs` and `monotonicMs` show exactly that moment, so that what a sleeper does next (sleep again, for
 * example) happens at its own time and not at the end of the advance. No real timer is ever started.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { assert } from "../../src/base/assert.ts";
import type { Clock } from "../../src/base/clock.ts";

interface Sleeper {
  readonly wakeMs: number;
  readonly wake: () => void;
}

/** Where a {@link FakeClock} begins. */
export interface FakeClockOptions {
  /** Wall clock at the start, in milliseconds since the epoch; 2026-01-01T00:00:00Z unless told. */
  readonly startMs?: number;
}

/** See the module comment. */
export class FakeClock implements Clock {
  /** In order of `wakeMs`; among equals, first come first. */
  readonly #sleepers: Sleeper[] = [];
  #monotonicMs = 0;
  #wallMs: number;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();

  constructor(options: FakeClockOptions = {}) {
    this.#wallMs = options.startMs ?? Date.UTC(2026, 0, 1);
  }

  nowMs(): number {
    return this.#wallMs;
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  /** How many are asleep now. */
  get sleeping(): number {
    return this.#sleepers.length;
  }

  sleep(ms: number, options: { readonly signal: AbortSignal }): Promise<void> {
    const { signal } = options;
    assert(ms >= 0, "a sleep is not negative");
    if (signal.aborted) return Promise.reject(signal.reason);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = () => {
      this.#sleepers.splice(this.#sleepers.indexOf(sleeper), 1);
      reject(signal.reason);
    };
    const wake = () => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    };
    const sleeper: Sleeper = { wakeMs: this.#monotonicMs + ms, wake };
    const later = this.#sleepers.findIndex((other) => other.wakeMs > sleeper.wakeMs);
    this.#sleepers.splice(later === -1 ? this.#sleepers.length : later, 0, sleeper);
    signal.addEventListener("abort", onAbort, { once: true });
    const changed = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    changed.resolve();
    return promise;
  }

  /** Moves time forward by `ms`, waking everybody whose deadline comes, and lets what they start settle in between. */
  async advance(ms: number): Promise<void> {
    assert(ms >= 0, "time does not go back");
    const endMs = this.#monotonicMs + ms;
    await settle();
    for (;;) {
      const next = this.#sleepers[0];
      if (next === undefined || next.wakeMs > endMs) break;
      this.#sleepers.shift();
      this.#moveTo(next.wakeMs);
      next.wake();
      await settle();
    }
    this.#moveTo(endMs);
  }

  /** Waits (in real time, without a timer) until at least `count` are asleep: the state to await before `advance`. */
  async untilSleeping(count: number): Promise<void> {
    while (this.#sleepers.length < count) await this.#changed.promise;
  }

  /** The wall clock jumps, as after a correction by NTP; the monotonic clock and sleepers do not notice. */
  jumpWall(ms: number): void {
    this.#wallMs += ms;
  }

  #moveTo(monotonicMs: number): void {
    this.#wallMs += monotonicMs - this.#monotonicMs;
    this.#monotonicMs = monotonicMs;
  }
}

/** Turns of the event loop after which chains of promises have run as far as they can without outside help. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 2; turn++) {
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}
