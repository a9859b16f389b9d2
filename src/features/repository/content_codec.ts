/**
 * Contents between their plain form and the bytes in a pack: hash, compress, encrypt, and back (reference/kopia.md 3.3 to
 * 3.5). Reading always recomputes the content id. Stock kopia takes successful decryption as proof, so a writer's mistake
 * under the right key would go unnoticed there.
 *
 * @module
 */

import type { Bytes } from "../../base/bytes.ts";
import { equalBytes } from "../../base/bytes.ts";
import type { Random } from "../../base/clock.ts";
import { AppError } from "../../base/failure.ts";
import { type ContentCipher, contentCipher, NONCE_BYTES } from "../../codec/kopia/cipher.ts";
import { compress, COMPRESSION_NONE, decompress } from "../../codec/kopia/compression.ts";
import { contentId, parseContentId } from "../../codec/kopia/content_id.ts";
import type { RepositoryFormat } from "../../codec/kopia/format.ts";
import { type ContentHasher, contentHasher } from "../../codec/kopia/hash.ts";
import type { IndexEntry } from "../../codec/kopia/index.ts";

/** A content ready to be put into a pack. */
export interface SealedContent {
  readonly bytes: Bytes;
  /** Header id of the compression that was worth it; 0 when stored raw. */
  readonly compression: number;
}

/** See the module comment. */
export class ContentCodec {
  readonly hasher: ContentHasher;
  readonly cipher: ContentCipher;
  readonly #random: Random;

  /** Throws `config` for a hash or cipher that we do not have. */
  constructor(format: RepositoryFormat, random: Random) {
    this.hasher = contentHasher(format.hash, format.hmacSecret);
    this.cipher = contentCipher(format.encryption, format.masterKey);
    this.#random = random;
  }

  nonce(): Bytes {
    return this.#random.bytes(NONCE_BYTES);
  }

  identify(prefix: string, data: Uint8Array): { readonly id: string; readonly hash: Bytes } {
    const hash = this.hasher.hash(data);
    return { id: contentId(prefix, hash), hash };
  }

  /** Throws `config` for a compression that we do not have. */
  seal(hash: Uint8Array, data: Uint8Array, compression: number): SealedContent {
    const compressed = compression === COMPRESSION_NONE ? undefined : compress(compression, data);
    return {
      bytes: this.cipher.encrypt(compressed ?? data, hash, this.nonce()),
      compression: compressed === undefined ? COMPRESSION_NONE : compression,
    };
  }

  /** The plain content, owned and proven to be the one of that id. Throws `corruption`. */
  open(entry: IndexEntry, sealed: Uint8Array): Bytes {
    const { hash } = parseContentId(entry.id);
    const packed = this.cipher.decrypt(sealed, hash);
    const plain = entry.compression === COMPRESSION_NONE
      ? packed
      : decompress(packed, entry.originalLength);
    if (plain.length !== entry.originalLength) {
      throw new AppError(
        "corruption",
        `Read content "${entry.id}": it has ${plain.length} bytes, wanted ${entry.originalLength}`,
      );
    }
    if (!equalBytes(this.hasher.hash(plain), hash)) {
      throw new AppError("corruption", `Read content "${entry.id}": its bytes have another hash`);
    }
    return plain;
  }
}
