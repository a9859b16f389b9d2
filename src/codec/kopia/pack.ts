/**
 * Layout of pack blobs: 32 random bytes, encrypted contents, padding, the encrypted local index and a postamble that says
 * where it lies (reference/kopia.md 3.6). The local index makes every pack self-describing: a lost index can be rebuilt
 * from packs alone.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { assert } from "../../base/assert.ts";
import { type Bytes, concat, equalBytes, viewOf } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import type { ContentCipher } from "./cipher.ts";
import type { ContentHasher } from "./hash.ts";

/** Random bytes at the beginning of a pack. */
export const PREAMBLE_BYTES = 32;
/** Random bytes that follow the image inside the sealed local index. */
export const LOCAL_INDEX_SUFFIX_BYTES = 32;
/** No postamble is longer, its length byte included: read that much of a pack's tail. */
export const POSTAMBLE_BYTES_MAX = 256;

const PADDING_UNIT_BYTES = 4096;
const POSTAMBLE_VERSION = 1;
const CRC_BYTES = 4;
/** Longest uvarint that is read: 35 bits, more than a pack offset needs. */
const UVARINT_BYTES_MAX = 5;

const SESSION_EPOCH_MS = Date.UTC(2000, 0, 1);
const SESSION_UNIT_MS = 30 * 24 * 3_600_000;

/** `p` holds contents without a prefix, `q` those with one. */
export type PackPrefix = "p" | "q";

/** Id of a pack: 16 random bytes and the session that wrote it. */
export function packName(prefix: PackPrefix, random16: Uint8Array, sessionId: string): string {
  assert(random16.length === 16, "a pack name has 16 random bytes");
  return `${prefix}${random16.toHex()}-${sessionId}`;
}

/** Id of a write session: 8 random bytes and the number of 30-day months since 2000. */
export function newSessionId(random8: Uint8Array, nowMs: number): string {
  assert(random8.length === 8, "a session id has 8 random bytes");
  const months = Math.max(0, Math.floor((nowMs - SESSION_EPOCH_MS) / SESSION_UNIT_MS));
  return `s${random8.toHex()}${months.toString(16)}`;
}

/** Random bytes to add after the contents when the pack has that length: 1 to 4096. */
export function paddingBytes(lengthSoFar: number): number {
  return PADDING_UNIT_BYTES - (lengthSoFar % PADDING_UNIT_BYTES);
}

/** The local index of a pack, sealed under the FULL hash of its plain bytes. */
export interface SealedLocalIndex {
  readonly iv: Bytes;
  readonly bytes: Bytes;
}

/** Seals an index image (see `index.ts`). `random32` and `nonce` (12) are random. */
export function sealLocalIndex(
  image: Uint8Array,
  random: { readonly random32: Uint8Array; readonly nonce: Uint8Array },
  hasher: ContentHasher,
  cipher: ContentCipher,
): SealedLocalIndex {
  assert(
    random.random32.length === LOCAL_INDEX_SUFFIX_BYTES,
    "a local index ends in 32 random bytes",
  );
  const plain = concat([image, random.random32]);
  const iv = hasher.hash(plain);
  return { iv, bytes: cipher.seal(plain, iv, random.nonce) };
}

/** The image in a sealed local index, random suffix included (readers ignore it). Throws `corruption`. */
export function openLocalIndex(
  sealed: SealedLocalIndex,
  hasher: ContentHasher,
  cipher: ContentCipher,
): Bytes {
  const plain = cipher.open(sealed.bytes, sealed.iv);
  if (!equalBytes(hasher.hash(plain), sealed.iv)) {
    throw new AppError("corruption", "Open the local index of a pack: its hash is another one");
  }
  return plain;
}

/** Where the local index of a pack lies. */
export interface Postamble {
  /** IV of the local index. */
  readonly iv: Bytes;
  readonly indexOffset: number;
  readonly indexLength: number;
}

/** The last bytes of a pack. */
export function encodePostamble(postamble: Postamble): Bytes {
  const body = concat([
    uvarint(POSTAMBLE_VERSION),
    uvarint(postamble.iv.length),
    postamble.iv,
    uvarint(postamble.indexOffset),
    uvarint(postamble.indexLength),
  ]);
  const whole = new Uint8Array(body.length + CRC_BYTES + 1);
  assert(whole.length <= POSTAMBLE_BYTES_MAX, "the length of a postamble fits in a byte");
  whole.set(body);
  viewOf(whole).setUint32(body.length, crc32(body));
  whole[whole.length - 1] = whole.length - 1;
  return whole;
}

/** Reads the postamble at the end of `tail`, the last bytes of a pack. Throws `corruption`. */
export function decodePostamble(tail: Uint8Array): Postamble {
  const length = tail.at(-1) ?? 0;
  const start = tail.length - 1 - length;
  if (start < 0 || length <= CRC_BYTES) throw badPostamble("its length byte is wrong");
  const body = tail.subarray(start, tail.length - 1 - CRC_BYTES);
  if (viewOf(tail).getUint32(start + body.length) !== crc32(body)) {
    throw badPostamble("its checksum is wrong");
  }
  const reader = { body, at: 0 };
  const version = readUvarint(reader);
  if (version !== POSTAMBLE_VERSION) throw badPostamble(`its version is ${version}, wanted 1`);
  const ivLength = readUvarint(reader);
  if (reader.at + ivLength > body.length) throw badPostamble("its IV is cut");
  const iv = body.slice(reader.at, reader.at + ivLength);
  reader.at += ivLength;
  const indexOffset = readUvarint(reader);
  const indexLength = readUvarint(reader);
  if (reader.at !== body.length) throw badPostamble("bytes are left over");
  return { iv, indexOffset, indexLength };
}

function uvarint(value: number): Bytes {
  assert(Number.isInteger(value) && value >= 0 && value < 2 ** 35, "a uvarint has at most 35 bits");
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

function readUvarint(reader: { readonly body: Uint8Array; at: number }): number {
  let value = 0;
  for (let i = 0; i < UVARINT_BYTES_MAX; i++) {
    const byte = reader.body[reader.at++];
    if (byte === undefined) throw badPostamble("a number is cut");
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return value;
  }
  throw badPostamble("a number is too long");
}

function badPostamble(what: string): AppError {
  return new AppError("corruption", `Read the postamble of a pack: ${what}`);
}
