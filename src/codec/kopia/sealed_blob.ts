/**
 * Whole blobs that are encrypted under their own name: index blobs and session markers (reference/kopia.md 3.8). The id
 * is a prefix, the hex hash of the plain bytes and, mostly, `-` and a suffix; the hash in the name gives the IV.
 *
 * @module
 */

import type { Bytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import type { ContentCipher } from "./cipher.ts";
import type { ContentHasher } from "./hash.ts";

const IV_BYTES = 16;

/** A blob ready to be stored. */
export interface SealedBlob {
  readonly id: string;
  readonly bytes: Bytes;
}

/** Names and encrypts a blob. `nonce` is 12 random bytes; an empty suffix adds nothing to the name. */
export function sealBlob(
  blob: {
    readonly prefix: string;
    readonly suffix: string;
    readonly plain: Uint8Array;
    readonly nonce: Uint8Array;
  },
  hasher: ContentHasher,
  cipher: ContentCipher,
): SealedBlob {
  const hash = hasher.hash(blob.plain);
  const id = blob.prefix + hash.toHex() + (blob.suffix === "" ? "" : "-" + blob.suffix);
  return { id, bytes: cipher.encrypt(blob.plain, hash, blob.nonce) };
}

/** The plain bytes; throws `corruption` when they are damaged or do not hash to the blob's name. */
export function openBlob(
  id: string,
  bytes: Uint8Array,
  cipher: ContentCipher,
  hasher: ContentHasher,
): Bytes {
  const [stem = ""] = id.split("-", 1);
  const hex = stem.slice(-2 * IV_BYTES);
  if (!/^[0-9a-f]{32}$/.test(hex)) {
    throw new AppError("corruption", `Open blob "${id}": its name holds no hash`);
  }
  const plain = cipher.decrypt(bytes, Uint8Array.fromHex(hex));
  if (!stem.endsWith(hasher.hash(plain).toHex())) {
    throw new AppError("corruption", `Open blob "${id}": its content has another hash`);
  }
  return plain;
}
