/**
 * A {@link BlobStore} in memory that can fail and crash. The faults it models are those that klio must survive: an operation
 * fails without effect, an operation fails after it took effect, and the process dies at any operation, with that last
 * one done or not. What a resolved put stored always survives; a put that did not resolve is whole or absent, never half.
 *
 * @module
 */

import type { Waiting } from "../../src/base/abort.ts";
import { type Bytes, concat } from "../../src/base/bytes.ts";
import type { Clock } from "../../src/base/clock.ts";
import { AppError } from "../../src/base/failure.ts";
import type { BlobInfo, BlobStore } from "../../src/ports/blob_store.ts";
import { FakeClock } from "./fake_clock.ts";

interface StoredBlob {
  readonly bytes: Bytes;
  readonly modifiedMs: number;
}

/** One call of a {@link BlobStore} method, as `onOperation` sees it. */
export interface BlobOperation {
  readonly kind: "put" | "get" | "stat" | "list" | "remove" | "lock";
  /** Blob id, or the prefix of a listing. */
  readonly id: string;
  /** Counts from 1. */
  readonly number: number;
}

/** What happens to an operation; absent means that it is carried out. */
export type Fate =
  /** Fails with `error` and changes nothing. */
  | { readonly fail: Error }
  /** Is carried out, yet fails with `error`. */
  | { readonly failAfter: Error }
  /** The process dies before (`lost`) or after (`done`) it took effect: this and every later call fails. */
  | { readonly crash: "lost" | "done" };

/** Everything has a default. */
export interface MemoryBlobStoreOptions {
  readonly clock?: Clock;
  readonly onOperation?: (operation: BlobOperation) => Fate | undefined | Promise<Fate | undefined>;
}

/** See the module comment. */
export class MemoryBlobStore implements BlobStore {
  readonly description = "memory";
  readonly #clock: Clock;
  /** What is stored now. A test may look, and may damage it. */
  readonly blobs: Map<string, StoredBlob>;
  onOperation: (operation: BlobOperation) => Fate | undefined | Promise<Fate | undefined>;
  #operations = 0;
  #crashed = false;
  #locked = false;

  constructor(options: MemoryBlobStoreOptions = {}, blobs = new Map<string, StoredBlob>()) {
    this.#clock = options.clock ?? new FakeClock();
    this.onOperation = options.onOperation ?? (() => undefined);
    this.blobs = blobs;
  }

  /** How many operations were begun. */
  get operations(): number {
    return this.#operations;
  }

  get crashed(): boolean {
    return this.#crashed;
  }

  /** The process dies now; the store that the next process finds. */
  restart(): MemoryBlobStore {
    this.#crashed = true;
    return this.copy();
  }

  /** An independent store with the same content and no faults. */
  copy(): MemoryBlobStore {
    return new MemoryBlobStore({ clock: this.#clock }, new Map(this.blobs));
  }

  async put(id: string, parts: readonly Uint8Array[], options: Waiting): Promise<void> {
    const bytes = concat(parts);
    await this.#carryOut("put", id, options, () => {
      this.blobs.set(id, { bytes, modifiedMs: this.#clock.nowMs() });
    });
  }

  async get(
    id: string,
    options: Waiting & { readonly offset?: number; readonly length?: number },
  ): Promise<Bytes> {
    return await this.#carryOut("get", id, options, () => {
      const { bytes } = this.#stored(id);
      const offset = options.offset ?? 0;
      const length = options.length ?? bytes.length - offset;
      if (offset < 0 || length < 0 || offset + length > bytes.length) {
        throw new AppError(
          "corruption",
          `Read ${length} bytes at ${offset} of blob "${id}": it has ${bytes.length}`,
        );
      }
      return bytes.slice(offset, offset + length);
    });
  }

  async stat(id: string, options: Waiting): Promise<BlobInfo> {
    return await this.#carryOut("stat", id, options, () => this.#info(id));
  }

  async *list(prefix: string, options: Waiting): AsyncGenerator<BlobInfo> {
    const ids = await this.#carryOut(
      "list",
      prefix,
      options,
      () => [...this.blobs.keys()].filter((id) => id.startsWith(prefix)),
    );
    for (const id of ids) {
      options.signal.throwIfAborted();
      if (this.blobs.has(id)) yield this.#info(id);
    }
  }

  async remove(id: string, options: Waiting): Promise<void> {
    await this.#carryOut("remove", id, options, () => void this.blobs.delete(id));
  }

  async lock(options: Waiting): Promise<AsyncDisposable> {
    return await this.#carryOut("lock", "", options, () => {
      if (this.#locked) throw new AppError("conflict", "Lock memory store: another holds it");
      this.#locked = true;
      let held = true;
      return {
        [Symbol.asyncDispose]: () => {
          if (held) this.#locked = false;
          held = false;
          return Promise.resolve();
        },
      };
    });
  }

  #stored(id: string): StoredBlob {
    const blob = this.blobs.get(id);
    if (blob === undefined) throw new AppError("not_found", `Read blob "${id}": no such blob`);
    return blob;
  }

  #info(id: string): BlobInfo {
    const { bytes, modifiedMs } = this.#stored(id);
    return { id, sizeBytes: bytes.length, modifiedMs };
  }

  async #carryOut<T>(
    kind: BlobOperation["kind"],
    id: string,
    options: Waiting,
    effect: () => T,
  ): Promise<T> {
    options.signal.throwIfAborted();
    this.#throwIfCrashed();
    const fate = await this.onOperation({ kind, id, number: ++this.#operations });
    this.#throwIfCrashed();
    options.signal.throwIfAborted();
    if (fate === undefined) return effect();
    if ("fail" in fate) throw fate.fail;
    if ("failAfter" in fate) {
      effect();
      throw fate.failAfter;
    }
    if (fate.crash === "done") effect();
    this.#crashed = true;
    throw crash();
  }

  #throwIfCrashed(): void {
    if (this.#crashed) throw crash();
  }
}

function crash(): AppError {
  return new AppError("repository", "Use memory store: the process died");
}
