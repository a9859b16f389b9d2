/**
 * Bounds work in flight by bytes and by count. `acquire` waits for room, in no particular order; something larger than
 * the whole budget is let in alone rather than never. `fail` wakes everybody.
 *
 * @module
 */

import { abortable, type Waiting } from "./abort.ts";
import { assert } from "./assert.ts";
import type { ByteQueueLimits } from "./byte_queue.ts";

/** See the module comment. */
export class ByteBudget {
  readonly #limits: ByteQueueLimits;
  #bytes = 0;
  #items = 0;
  #failure: { readonly error: unknown } | undefined;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();

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
    while (this.#failure === undefined && !this.#fits(sizeBytes)) {
      await abortable(this.#changed.promise, options);
    }
    if (this.#failure !== undefined) throw this.#failure.error;
    this.#bytes += sizeBytes;
    this.#items++;
  }

  /** Gives back what `acquire` took. */
  release(sizeBytes: number): void {
    this.#bytes -= sizeBytes;
    this.#items--;
    assert(this.#bytes >= 0 && this.#items >= 0, "only what was acquired is released");
    this.#wake();
  }

  /** Every waiting and later `acquire` throws `error`. The first failure wins. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake();
  }

  #fits(sizeBytes: number): boolean {
    if (this.#items === 0) return true;
    return this.#items < this.#limits.itemsMax &&
      this.#bytes + sizeBytes <= this.#limits.bytesMax;
  }

  #wake(): void {
    const changed = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    changed.resolve();
  }
}
