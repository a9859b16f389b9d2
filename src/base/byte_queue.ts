/**
 * A queue bounded by bytes and by items, for one or more producers and one consumer. `push` waits while the queue is
 * full, so back-pressure reaches the producer; an item larger than the whole bound is let in alone rather than never.
 * `fail` and `close` wake everybody; what was queued before `close` is still delivered.
 *
 * @module
 */

import { assert } from "./assert.ts";
import { abortable, type Waiting } from "./abort.ts";
import { AppError } from "./failure.ts";

/** Bounds of a {@link ByteQueue}. */
export interface ByteQueueLimits {
  readonly bytesMax: number;
  readonly itemsMax: number;
}

/** See the module comment. */
export class ByteQueue<T> {
  readonly #limits: ByteQueueLimits;
  readonly #sizeOf: (item: T) => number;
  #items: T[] = [];
  #bytes = 0;
  #closed = false;
  #failure: { readonly error: unknown } | undefined;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();

  constructor(limits: ByteQueueLimits, sizeOf: (item: T) => number) {
    assert(limits.bytesMax > 0 && limits.itemsMax > 0, "queue limits are positive");
    this.#limits = limits;
    this.#sizeOf = sizeOf;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get length(): number {
    return this.#items.length;
  }

  #fits(size: number): boolean {
    if (this.#items.length === 0) return true;
    return this.#items.length < this.#limits.itemsMax &&
      this.#bytes + size <= this.#limits.bytesMax;
  }

  #signalChange(): void {
    const changed = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    changed.resolve();
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Adds an item if it fits now; false means full. Throws after `close` or `fail`. */
  tryPush(item: T): boolean {
    this.#throwIfFailed();
    if (this.#closed) throw new AppError("cancelled", "Push to a closed queue");
    const size = this.#sizeOf(item);
    if (!this.#fits(size)) return false;
    this.#items.push(item);
    this.#bytes += size;
    this.#signalChange();
    return true;
  }

  /** Adds an item, waiting for room. */
  async push(item: T, options: Waiting): Promise<void> {
    options.signal.throwIfAborted();
    while (!this.tryPush(item)) await abortable(this.#changed.promise, options);
  }

  /** Everything queued now, at least one item; undefined when closed and drained. */
  async takeAll(options: Waiting): Promise<T[] | undefined> {
    options.signal.throwIfAborted();
    for (;;) {
      this.#throwIfFailed();
      if (this.#items.length > 0) {
        const items = this.#items;
        this.#items = [];
        this.#bytes = 0;
        this.#signalChange();
        return items;
      }
      if (this.#closed) return undefined;
      await abortable(this.#changed.promise, options);
    }
  }

  /** The next item; undefined when closed and drained. */
  async take(options: Waiting): Promise<T | undefined> {
    options.signal.throwIfAborted();
    for (;;) {
      this.#throwIfFailed();
      const item = this.#items.shift();
      if (item !== undefined) {
        this.#bytes -= this.#sizeOf(item);
        this.#signalChange();
        return item;
      }
      if (this.#closed) return undefined;
      await abortable(this.#changed.promise, options);
    }
  }

  /** No more items will come; queued ones are still delivered. */
  close(): void {
    this.#closed = true;
    this.#signalChange();
  }

  /** Drops what is queued; every later call throws `error`. The first failure wins. */
  fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = { error };
    this.#items = [];
    this.#bytes = 0;
    this.#signalChange();
  }
}
