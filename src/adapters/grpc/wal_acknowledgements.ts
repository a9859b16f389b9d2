/**
 * The acknowledgements of an append stream on their way to whoever listens. Only the latest is kept: positions never go
 * back, so it says all that the earlier ones said.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";
import type { Lsn } from "../../domain/lsn.ts";

/** See the module comment. For one listener. */
export class WalAcknowledgements {
  #told: Lsn;
  #durable: Lsn;
  #isEnded = false;
  #failure: { readonly error: unknown } | undefined;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();

  constructor(start: Lsn) {
    this.#told = start;
    this.#durable = start;
  }

  /** Everything before `position` is durable. Throws `protocol` when it goes back. */
  advance(position: Lsn): void {
    if (position < this.#durable) {
      throw new AppError("protocol", "Append WAL: the durable position went back");
    }
    this.#durable = position;
    this.#wake();
  }

  /** No more will come. */
  end(): void {
    this.#isEnded = true;
    this.#wake();
  }

  /** No more will come, and this is why. The first failure wins. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.end();
  }

  /** Throws what `fail` was given. */
  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** The positions, until the end; throws the failure. */
  async *positions(): AsyncGenerator<Lsn> {
    for (;;) {
      const changed = this.#changed.promise;
      if (this.#durable > this.#told) {
        this.#told = this.#durable;
        yield this.#told;
        continue; // it may have moved meanwhile
      }
      this.throwIfFailed();
      if (this.#isEnded) return;
      await changed;
    }
  }

  #wake(): void {
    const changed = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    changed.resolve();
  }
}
