/**
 * A flat store of named blobs, as Kopia's repositories need it (reference/kopia.md 3.10, 3.11). Contract: `put` is atomic
 * and durable when it resolves (content and name, the directory fsynced too) and replaces what was there; `list` after
 * `put` shows the blob; errors are `not_found`, `permission`, `exhausted`, `repository`.
 *
 * @module
 */

import type { Waiting } from "../base/abort.ts";

/** One blob in a listing. */
export interface BlobInfo {
  readonly id: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

/** See the module comment. */
export interface BlobStore {
  /** For messages, without secrets: `directory /data/base`. */
  readonly description: string;
  /** `parts` are borrowed until it resolves and stored as one blob in order. */
  put(id: string, parts: readonly Uint8Array[], options: Waiting): Promise<void>;
  /** Owned bytes; a range outside the blob is `corruption`. `not_found` when absent. */
  get(
    id: string,
    options: Waiting & { readonly offset?: number; readonly length?: number },
  ): Promise<Uint8Array<ArrayBuffer>>;
  /** `not_found` when absent. */
  stat(id: string, options: Waiting): Promise<BlobInfo>;
  list(prefix: string, options: Waiting): AsyncIterable<BlobInfo>;
  /** Absent is success. */
  remove(id: string, options: Waiting): Promise<void>;
  /**
   * Makes the holder the store's only owner until the handle is disposed or its process dies; it binds only those who
   * ask. `conflict` while another holds it, in this process or in another.
   */
  lock(options: Waiting): Promise<AsyncDisposable>;
}
