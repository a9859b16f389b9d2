/**
 * Writes objects: bytes are cut by the repository's splitter, each piece becomes a content, and an object of several
 * pieces gets an index (reference/kopia.md 2.2). What the repository has is not sent again: contents of at least
 * {@link PROBE_BYTES_MIN} are asked for first, as stock does; smaller ones cost less to send than to ask for.
 *
 * Memory: `bytesInFlightMax` over all objects, plus one piece and one caller's block per object being written.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { ByteBudget } from "../../base/byte_budget.ts";
import type { Bytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { TaskGroup } from "../../base/task_group.ts";
import { contentId } from "../../codec/kopia/content_id.ts";
import { type ContentHasher, contentHasher } from "../../codec/kopia/hash.ts";
import { encodeIndirect, type IndirectEntry } from "../../codec/kopia/indirect.ts";
import { indirectObjectId } from "../../codec/kopia/object_id.ts";
import { newSplitter } from "../../codec/kopia/splitter.ts";
import type { RepositorySession } from "../../ports/repository_session.ts";

/** Contents of this size and above are asked for before they are sent. */
export const PROBE_BYTES_MIN = 50_000;

/** Header id of Kopia's `zstd-fastest`. */
const COMPRESSION_ZSTD_FASTEST = 0x1101;

/** A stored object. */
export interface WrittenObject {
  readonly objectId: string;
  readonly lengthBytes: number;
}

/** What a writer did so far, indexes and directories included. */
export interface WriterStatistics {
  readonly newBytes: number;
  readonly deduplicatedBytes: number;
}

/** Pieces in flight at once; the bytes are the bound that counts, this one is for files of a few bytes. */
const PIECES_MAX = 1024;

/** See the module comment. Many objects may be written at the same time. */
export class ObjectWriter {
  readonly #repository: RepositorySession;
  readonly #hasher: ContentHasher;
  readonly #budget: ByteBudget;
  readonly #compression: number;
  #newBytes = 0;
  #deduplicatedBytes = 0;

  /** Throws `config` when the repository's hash or splitter is not supported. */
  constructor(repository: RepositorySession, options: { readonly bytesInFlightMax: number }) {
    const { hashFunction, hmacSecret, splitter, supportsContentCompression } =
      repository.parameters;
    newSplitter(splitter);
    this.#repository = repository;
    this.#hasher = contentHasher(hashFunction, hmacSecret);
    this.#budget = new ByteBudget({ bytesMax: options.bytesInFlightMax, itemsMax: PIECES_MAX });
    this.#compression = supportsContentCompression ? COMPRESSION_ZSTD_FASTEST : 0;
  }

  get statistics(): WriterStatistics {
    return { newBytes: this.#newBytes, deduplicatedBytes: this.#deduplicatedBytes };
  }

  /**
   * Stores the concatenation of `blocks` (each borrowed until the next is asked for). `prefix` is the content prefix, empty
   * for file data. Throws what the repository or the blocks throw.
   */
  async write(
    blocks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    options: Waiting & { readonly prefix?: string },
  ): Promise<WrittenObject> {
    const prefix = options.prefix ?? "";
    const splitter = newSplitter(this.#repository.parameters.splitter);
    const piece = new PieceBuffer(splitter.pieceBytesMax);
    const entries: IndirectEntry[] = [];
    let lengthBytes = 0;
    {
      await using group = new TaskGroup(options.signal);
      const send = async () => {
        const data = piece.take();
        await this.#budget.acquire(data.length, group);
        const index = entries.length;
        const entry = { start: lengthBytes, lengthBytes: data.length, objectId: "" };
        entries.push(entry);
        lengthBytes += data.length;
        group.start(async (signal) => {
          try {
            entries[index] = { ...entry, objectId: await this.#put(prefix, data, { signal }) };
          } finally {
            this.#budget.release(data.length);
          }
        });
      };
      for await (const block of blocks) {
        let rest = block;
        for (let cut = splitter.next(rest); cut >= 0; cut = splitter.next(rest)) {
          piece.append(rest.subarray(0, cut));
          rest = rest.subarray(cut);
          await send();
        }
        piece.append(rest);
      }
      if (piece.length > 0 || entries.length === 0) await send();
      await group.join();
    }
    const [only] = entries;
    if (entries.length === 1 && only !== undefined) return { objectId: only.objectId, lengthBytes };
    const index = await this.write([encodeIndirect(entries)], {
      signal: options.signal,
      prefix: prefix === "" ? "x" : prefix,
    });
    return { objectId: indirectObjectId(index.objectId), lengthBytes };
  }

  async #put(prefix: string, data: Bytes, options: Waiting): Promise<string> {
    const id = contentId(prefix, this.#hasher.hash(data));
    if (data.length >= PROBE_BYTES_MIN) {
      const known = await this.#repository.contentInfo(id, options);
      // A content marked deleted may be collected any moment: writing it again revives it.
      if (known !== undefined && !known.deleted) {
        this.#deduplicatedBytes += data.length;
        return id;
      }
    }
    const compression = this.#compression;
    const stored = await this.#repository.writeContent({ prefix, data, compression }, options);
    if (stored !== id) {
      throw new AppError(
        "protocol",
        `Write content "${id}": the repository stored it as "${stored.slice(0, 80)}"`,
      );
    }
    this.#newBytes += data.length;
    return id;
  }
}

/** Collects the bytes of one piece; grows by doubling, so that a small file costs a small buffer. */
class PieceBuffer {
  readonly #bytesMax: number;
  #buffer: Bytes = new Uint8Array(0);
  #length = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get length(): number {
    return this.#length;
  }

  append(bytes: Uint8Array): void {
    const length = this.#length + bytes.length;
    if (length > this.#buffer.length) {
      const grown = new Uint8Array(Math.min(this.#bytesMax, Math.max(length, this.#length * 2)));
      grown.set(this.#buffer.subarray(0, this.#length));
      this.#buffer = grown;
    }
    this.#buffer.set(bytes, this.#length);
    this.#length = length;
  }

  /** What was collected, owned; starts the next piece. */
  take(): Bytes {
    const piece = this.#buffer.subarray(0, this.#length);
    this.#buffer = new Uint8Array(0);
    this.#length = 0;
    return piece;
  }
}
