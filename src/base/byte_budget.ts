/**
 * Bounds work in flight by bytes and by count. `acquire` waits for room, first come first served; something larger than
 * the whole budget is let in alone rather than never. `fail` wakes everybody.
 *
 * @module
 */

import type { Waiting } from "./abort.ts";
import { assert } from "./assert.ts";
import type { ByteQueueLimits } from "./byte_queue.ts";

interface Waiter extends PromiseWithResolvers<void> {
  readonly sizeBytes: number;
}

/** See the module comment. */
export class ByteBudget {
  readonly #limits: ByteQueueLimits;
  /** In order of arrival. Only those that get room are woken: waking all each time is quadratic. */
  readonly #waiters = new Set<Waiter>();
  #bytes = 0;
  #items = 0;
  #failure: { readonly error: unknown } | undefined;

  constructor(limits: ByteQueueLimits) {
    assert(limits.bytesMax > 0 && limits.itemsMax > 0, "budget limits are positive");
    this.#limits = limits;
  }

  /** Bytes in flight. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Takes room for one item of this size, waiting for it; throws what `fail` was given. */
  async acquire(sizeBytes: number, options: Waiting): Promise<void> {
    options.signal.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.#waiters.size === 0 && this.#fits(sizeBytes)) return this.#take(sizeBytes);
    const waiter: Waiter = { sizeBytes, ...Promise.withResolvers<void>() };
    this.#waiters.add(waiter);
    const onAbort = () => {
      if (!this.#waiters.delete(waiter)) return; // it has its room already
      waiter.reject(options.signal.reason);
      this.#admit(); // it may have been in the way of smaller ones
    };
    options.signal.addEventListener("abort", onAbort, { once: true });
    try {
      await waiter.promise;
    } finally {
      options.signal.removeEventListener("abort", onAbort);
    }
  }

  /** Gives back what `acquire` took. */
  release(sizeBytes: number): void {
    this.#bytes -= sizeBytes;
    this.#items--;
    assert(this.#bytes >= 0 && this.#items >= 0, "only what was acquired is released");
    this.#admit();
  }

  /** Every waiting and later `acquire` throws `error`. The first failure wins. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    for (const waiter of this.#waiters) waiter.reject(this.#failure.error);
    this.#waiters.clear();
  }

  #admit(): void {
    for (const waiter of this.#waiters) {
      if (!this.#fits(waiter.sizeBytes)) return;
      this.#waiters.delete(waiter);
      this.#take(waiter.sizeBytes);
      waiter.resolve();
    }
  }

  #take(sizeBytes: number): void {
    this.#bytes += sizeBytes;
    this.#items++;
  }

  #fits(sizeBytes: number): boolean {
    if (this.#items === 0) return true;
    return this.#items < this.#limits.itemsMax &&
      this.#bytes + sizeBytes <= this.#limits.bytesMax;
  }
}
