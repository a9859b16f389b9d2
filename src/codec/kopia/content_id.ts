/**
 * Content ids: an optional one-letter prefix `g` to `z`, then the hash in lower-case hex (reference/kopia.md 2.1). In an
 * index the same id is a key: the prefix byte, 0 when there is none, then the hash. Ids and keys sort alike.
 *
 * @module
 */

import { assert } from "../../base/assert.ts";
import type { Bytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";

/** Longest hash that the format allows. */
export const HASH_BYTES_MAX = 32;

const ID = /^[g-z]?[0-9a-f]+$/;
const LETTER_G = 0x67;
const PREFIX = /^[g-z]?$/;

/** A content id taken apart. */
export interface ParsedContentId {
  /** One letter `g` to `z`, or empty. */
  readonly prefix: string;
  readonly hash: Bytes;
}

/** True for `""` and the letters that may stand before a hash. */
export function isContentPrefix(prefix: string): boolean {
  return PREFIX.test(prefix);
}

/** The id of the content with that hash. */
export function contentId(prefix: string, hash: Uint8Array): string {
  assert(isContentPrefix(prefix), "a content prefix is empty or a letter from g to z");
  assert(hash.length > 0 && hash.length <= HASH_BYTES_MAX, "a content hash has 1 to 32 bytes");
  return prefix + hash.toHex();
}

/** Takes an id apart; throws `protocol` when it is none. */
export function parseContentId(id: string): ParsedContentId {
  const key = contentIdKey(id);
  return { prefix: key[0] === 0 ? "" : id.slice(0, 1), hash: key.slice(1) };
}

/** The index key of an id; throws `protocol` when it is no content id. */
export function contentIdKey(id: string): Bytes {
  const hashBytes = id.length >> 1; // an odd length means a prefix letter
  const prefixLength = id.length & 1;
  const hasPrefix = id.charCodeAt(0) >= LETTER_G;
  if (
    !ID.test(id) || hasPrefix !== (prefixLength === 1) || hashBytes === 0 ||
    hashBytes > HASH_BYTES_MAX
  ) {
    throw new AppError(
      "protocol",
      `Parse content id "${id.slice(0, 80)}": not a prefix and hex digits`,
    );
  }
  const key = new Uint8Array(1 + hashBytes);
  if (hasPrefix) key[0] = id.charCodeAt(0);
  key.subarray(1).setFromHex(hasPrefix ? id.slice(1) : id);
  return key;
}

/** The id of an index key; throws `corruption` when the key is malformed. */
export function contentIdOfKey(key: Uint8Array): string {
  const letter = key[0] ?? 0xff;
  const prefix = letter === 0 ? "" : String.fromCharCode(letter);
  if (!isContentPrefix(prefix) || key.length < 2 || key.length > 1 + HASH_BYTES_MAX) {
    throw new AppError("corruption", `Read content key of ${key.length} bytes: malformed`, {
      data: { prefixByte: letter },
    });
  }
  return prefix + key.subarray(1).toHex();
}
