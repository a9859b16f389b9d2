/**
 * A bound on bytes in flight that several tasks share, first come, first served. A request larger than the whole bound is
 * let in alone rather than never.
 *
 * @module
 */

import { abortable, type Waiting } from "../../base/abort.ts";
import { assert } from "../../base/assert.ts";

interface Waiter {
  readonly bytes: number;
  readonly turn: PromiseWithResolvers<void>;
}

/** See the module comment. */
export class ByteBudget {
  readonly #bytesMax: number;
  #used = 0;
  #waiting: Waiter[] = [];

  constructor(bytesMax: number) {
    assert(bytesMax > 0, "a byte budget is positive");
    this.#bytesMax = bytesMax;
  }

  /** Waits for room; disposing the permit gives it back. */
  async acquire(bytes: number, options: Waiting): Promise<Disposable> {
    const waiter: Waiter = { bytes, turn: Promise.withResolvers<void>() };
    this.#waiting.push(waiter);
    this.#admit();
    try {
      await abortable(waiter.turn.promise, options);
    } catch (error) {
      if (this.#waiting.includes(waiter)) {
        this.#waiting = this.#waiting.filter((other) => other !== waiter);
        this.#admit();
      } else {
        this.#release(bytes);
      }
      throw error;
    }
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (held) this.#release(bytes);
        held = false;
      },
    };
  }

  #admit(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      if (this.#used > 0 && this.#used + first.bytes > this.#bytesMax) return;
      this.#waiting.shift();
      this.#used += first.bytes;
      first.turn.resolve();
    }
  }

  #release(bytes: number): void {
    this.#used -= bytes;
    this.#admit();
  }
}
