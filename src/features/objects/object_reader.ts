/**
 * Reads objects. Nothing that comes back is trusted: every content is hashed again and compared with its id, every piece
 * has the length that the index says. Contents are fetched ahead of the consumer, `bytesAheadMax` per object.
 *
 * @module
 */

import { linkSignals, type Waiting } from "../../base/abort.ts";
import { type Bytes, concat, equalBytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { parseContentId } from "../../codec/kopia/content_id.ts";
import { type ContentHasher, contentHasher } from "../../codec/kopia/hash.ts";
import { decodeIndirect } from "../../codec/kopia/indirect.ts";
import { parseObjectId } from "../../codec/kopia/object_id.ts";
import type { RepositorySession } from "../../ports/repository_session.ts";

/** Pieces that are objects themselves (joined uploads) nest at most this deep. */
const NESTING_MAX = 16;

/** An index of a 1 GiB file with 128 KiB pieces has 540 KB; this one serves files of 128 GiB. */
const INDEX_BYTES_MAX = 64 << 20;

interface Piece {
  readonly contentId: string;
  /** undefined: the object is a single content. */
  readonly lengthBytes: number | undefined;
}

type Fetched = { readonly data: Bytes } | { readonly error: unknown };

/** See the module comment. Many objects may be read at the same time. */
export class ObjectReader {
  readonly #repository: RepositorySession;
  readonly #hasher: ContentHasher;
  readonly #bytesAheadMax: number;

  /** Throws `config` when the repository's hash is not supported. */
  constructor(repository: RepositorySession, options: { readonly bytesAheadMax: number }) {
    const { hashFunction, hmacSecret } = repository.parameters;
    this.#repository = repository;
    this.#hasher = contentHasher(hashFunction, hmacSecret);
    this.#bytesAheadMax = options.bytesAheadMax;
  }

  /**
   * The blocks of an object in order, owned by the consumer. Leaving early cancels what is under way. Throws `protocol` for
   * a malformed id, `not_found` and `corruption` for what the repository lacks or has wrong.
   */
  async *read(objectId: string, options: Waiting): AsyncGenerator<Bytes, void, undefined> {
    using linked = linkSignals(options.signal);
    const { signal } = linked;
    const pieces = this.#pieces(objectId, undefined, 0, { signal });
    const ahead: Array<{ readonly sizeBytes: number; readonly fetched: Promise<Fetched> }> = [];
    let bytesAhead = 0;
    let more = true;
    try {
      for (;;) {
        while (more && (ahead.length === 0 || bytesAhead < this.#bytesAheadMax)) {
          const next = await pieces.next();
          if (next.done === true) {
            more = false;
            break;
          }
          const sizeBytes = next.value.lengthBytes ?? 0;
          const fetched = this.#fetch(next.value, { signal }).then(
            (data) => ({ data }),
            (error: unknown) => ({ error }),
          );
          ahead.push({ sizeBytes, fetched });
          bytesAhead += sizeBytes;
        }
        const first = ahead.shift();
        if (first === undefined) return;
        const result = await first.fetched;
        if ("error" in result) throw result.error;
        bytesAhead -= first.sizeBytes;
        yield result.data;
      }
    } finally {
      linked.abort(new AppError("cancelled", `Read object "${objectId}": nobody wants the rest`));
      await Promise.all(ahead.map(({ fetched }) => fetched));
    }
  }

  /** A whole object, owned. Throws `corruption` when it is longer than `sizeBytesMax`. */
  async readAll(
    objectId: string,
    options: Waiting & { readonly sizeBytesMax: number },
  ): Promise<Bytes> {
    const blocks: Bytes[] = [];
    let sizeBytes = 0;
    for await (const block of this.read(objectId, options)) {
      sizeBytes += block.length;
      if (sizeBytes > options.sizeBytesMax) {
        throw new AppError(
          "corruption",
          `Read object "${objectId}": longer than ${options.sizeBytesMax} bytes`,
        );
      }
      blocks.push(block);
    }
    const [only] = blocks;
    return blocks.length === 1 && only !== undefined ? only : concat(blocks);
  }

  async *#pieces(
    objectId: string,
    lengthBytes: number | undefined,
    depth: number,
    options: Waiting,
  ): AsyncGenerator<Piece, void, undefined> {
    const { indirection, compressed, contentId } = parseObjectId(objectId);
    if (compressed) {
      throw new AppError(
        "config",
        `Read object "${objectId}": object-level compression is not supported`,
        {
          hint: "stock kopia writes such objects only into repositories of format version 1",
        },
      );
    }
    if (indirection === 0) {
      yield { contentId, lengthBytes };
      return;
    }
    if (depth >= NESTING_MAX) {
      throw new AppError(
        "corruption",
        `Read object "${objectId}": nested deeper than ${NESTING_MAX}`,
      );
    }
    const index = await this.readAll(objectId.slice(1), {
      signal: options.signal,
      sizeBytesMax: INDEX_BYTES_MAX,
    });
    const entries = decodeIndirect(index);
    const total = entries.reduce((sum, entry) => sum + entry.lengthBytes, 0);
    if (lengthBytes !== undefined && total !== lengthBytes) {
      throw new AppError(
        "corruption",
        `Read object "${objectId}": its index covers ${total} bytes, wanted ${lengthBytes}`,
      );
    }
    for (const entry of entries) {
      yield* this.#pieces(entry.objectId, entry.lengthBytes, depth + 1, options);
    }
  }

  async #fetch(piece: Piece, options: Waiting): Promise<Bytes> {
    const { contentId, lengthBytes } = piece;
    const data = await this.#repository.readContent(contentId, options);
    if (lengthBytes !== undefined && data.length !== lengthBytes) {
      throw new AppError(
        "corruption",
        `Read content "${contentId}": ${data.length} bytes, wanted ${lengthBytes}`,
      );
    }
    if (!equalBytes(this.#hasher.hash(data), parseContentId(contentId).hash)) {
      throw new AppError("corruption", `Read content "${contentId}": its bytes have another hash`);
    }
    return data;
  }
}
