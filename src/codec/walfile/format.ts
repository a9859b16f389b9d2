/**
 * Constants, keys and the fixed-size head of a "klio WAL file, version 1"; see FORMAT.md beside this file, which is the
 * specification. Bytes in, values out: no I/O.
 *
 * @module
 */

import { createCipheriv, createHmac } from "node:crypto";

import { assert } from "../../base/assert.ts";
import { type Bytes, concat, equalBytes, fromUtf8, utf8, viewOf } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";

/** The plain header: `tail -c +65` skips it. */
export const HEADER_BYTES = 64;
/** Random bytes per file; with them every file has keys of its own. */
export const SALT_BYTES = 32;
/** Length of the archive key and of every key derived from it. */
export const KEY_BYTES = 32;
/** Length of an authentication code. */
export const MAC_BYTES = 32;
/** WAL bytes in one unit at most: bounds the memory of every reader. */
export const UNIT_WAL_BYTES_MAX = 1 << 20;
/** A zstd frame of that many bytes, incompressible ones included, is never longer. */
export const UNIT_FRAME_BYTES_MAX = UNIT_WAL_BYTES_MAX + (8 << 10);

const CHACHA_BLOCK_BYTES = 64;
const MAGIC = utf8("KLIOWAL1");
const RESERVED_BYTES = HEADER_BYTES - MAGIC.length - SALT_BYTES;
const SKIPPABLE_DESCRIPTION = 0x184d2a51;
const SKIPPABLE_UNIT = 0x184d2a50;
const SKIPPABLE_HEAD_BYTES = 8;
const NAME_BYTES = 40;
const DESCRIPTION_PAYLOAD_BYTES = 8 + 8 + NAME_BYTES;
const LEAD_PAYLOAD_BYTES = 4 + 8;

/** The description without its code. */
export const DESCRIPTION_OPEN_BYTES = SKIPPABLE_HEAD_BYTES + DESCRIPTION_PAYLOAD_BYTES;
/** The lead of a unit without its code. */
export const LEAD_OPEN_BYTES = SKIPPABLE_HEAD_BYTES + LEAD_PAYLOAD_BYTES;
/** The whole head of a file: header, description and the description's code. */
export const HEAD_BYTES = HEADER_BYTES + DESCRIPTION_OPEN_BYTES + MAC_BYTES;

/** What a file is; authenticated, so that files cannot be exchanged for one another. */
export interface WalFileDescription {
  /** PostgreSQL's system identifier, decimal. */
  readonly systemId: string;
  /** WAL file name without `.partial`. */
  readonly name: string;
  /** Content bytes when whole. */
  readonly sizeBytes: number;
}

/** Keys of one file. */
export interface WalFileKeys {
  readonly encryption: Bytes;
  readonly mac: Bytes;
}

function corrupt(what: string): AppError {
  return new AppError("corruption", `Decode WAL file: ${what}`);
}

function hmac(key: Uint8Array, ...parts: readonly Uint8Array[]): Bytes {
  const code = createHmac("sha256", key);
  for (const part of parts) code.update(part);
  return concat([code.digest()]);
}

/** The keys of the file with this salt. */
export function deriveKeys(archiveKey: Uint8Array, salt: Uint8Array): WalFileKeys {
  assert(
    archiveKey.length === KEY_BYTES && salt.length === SALT_BYTES,
    "key and salt are 32 bytes",
  );
  return {
    encryption: hmac(archiveKey, utf8("klio wal encrypt v1"), salt),
    mac: hmac(archiveKey, utf8("klio wal mac v1"), salt),
  };
}

/** The code of a unit: chained to what stands before it, over ciphertext. */
export function unitMac(
  keys: WalFileKeys,
  previous: Uint8Array,
  parts: readonly Uint8Array[],
): Bytes {
  return hmac(keys.mac, previous, ...parts);
}

/**
 * Encrypts or decrypts consecutive parts of the body, the first of which stands at `position` in it. A cipher object is
 * a resource of the runtime until `final`, so none outlives the call: the counter is set to the position instead.
 */
export function applyKeystream(
  keys: WalFileKeys,
  position: number,
  parts: readonly Uint8Array[],
): Bytes[] {
  const iv = new Uint8Array(16);
  // Key and file belong together, therefore the nonce may be zero and the counter may start at zero.
  viewOf(iv).setUint32(0, Math.floor(position / CHACHA_BLOCK_BYTES), true);
  const cipher = createCipheriv("chacha20", keys.encryption, iv);
  try {
    cipher.update(new Uint8Array(position % CHACHA_BLOCK_BYTES));
    return parts.map((part) => concat([cipher.update(part)]));
  } finally {
    cipher.final();
  }
}

/** The plain header of a file. */
export function encodeHeader(salt: Uint8Array): Bytes {
  return concat([MAGIC, salt, new Uint8Array(RESERVED_BYTES)]);
}

/** The salt in a header (a view). Throws `corruption`. */
export function decodeHeader(header: Uint8Array): Uint8Array {
  const start = header.subarray(0, MAGIC.length);
  if (!equalBytes(start, MAGIC)) {
    throw corrupt(`it starts with ${start.toHex()}, wanted ${MAGIC.toHex()} ("KLIOWAL1")`);
  }
  if (header.subarray(MAGIC.length + SALT_BYTES, HEADER_BYTES).some((byte) => byte !== 0)) {
    throw corrupt("reserved bytes of the header are set: damaged, or written by a later klio");
  }
  return header.subarray(MAGIC.length, MAGIC.length + SALT_BYTES);
}

/** The description, plain and without its code. */
export function encodeDescription(description: WalFileDescription): Bytes {
  const name = utf8(description.name);
  assert(name.length > 0 && name.length <= NAME_BYTES, "a WAL file name has 1 to 40 bytes");
  const bytes = new Uint8Array(DESCRIPTION_OPEN_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, SKIPPABLE_DESCRIPTION, true);
  view.setUint32(4, DESCRIPTION_PAYLOAD_BYTES + MAC_BYTES, true);
  view.setBigUint64(8, BigInt(description.systemId), true);
  view.setBigUint64(16, BigInt(description.sizeBytes), true);
  bytes.set(name, 24);
  return bytes;
}

/** Reads an authenticated description. Throws `corruption`. */
export function decodeDescription(bytes: Uint8Array): WalFileDescription {
  const view = viewOf(bytes);
  const sizeBytes = view.getBigUint64(16, true);
  const padded = bytes.subarray(24, 24 + NAME_BYTES);
  const end = padded.indexOf(0);
  const name = fromUtf8(end === -1 ? padded : padded.subarray(0, end));
  if (
    view.getUint32(0, true) !== SKIPPABLE_DESCRIPTION ||
    view.getUint32(4, true) !== DESCRIPTION_PAYLOAD_BYTES + MAC_BYTES ||
    sizeBytes > BigInt(Number.MAX_SAFE_INTEGER) || name === ""
  ) {
    throw corrupt("its description is malformed");
  }
  return { systemId: view.getBigUint64(8, true).toString(), name, sizeBytes: Number(sizeBytes) };
}

/** What the lead of a unit says of the zstd frame that follows it. */
export interface UnitLead {
  readonly frameBytes: number;
  /** Content bytes of the file up to the end of this unit. */
  readonly endOffset: number;
}

/** The lead of a unit, plain and without its code. */
export function encodeLead(lead: UnitLead): Bytes {
  const bytes = new Uint8Array(LEAD_OPEN_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, SKIPPABLE_UNIT, true);
  view.setUint32(4, LEAD_PAYLOAD_BYTES + MAC_BYTES, true);
  view.setUint32(8, lead.frameBytes, true);
  view.setBigUint64(12, BigInt(lead.endOffset), true);
  return bytes;
}

/** Reads a lead that follows content up to `offset`; not authenticated yet, but bounded. Throws `corruption`. */
export function decodeLead(bytes: Uint8Array, offset: number): UnitLead {
  const view = viewOf(bytes);
  const frameBytes = view.getUint32(8, true);
  const end = view.getBigUint64(12, true);
  const walBytes = end - BigInt(offset);
  if (
    view.getUint32(0, true) !== SKIPPABLE_UNIT ||
    view.getUint32(4, true) !== LEAD_PAYLOAD_BYTES + MAC_BYTES ||
    frameBytes === 0 || frameBytes > UNIT_FRAME_BYTES_MAX ||
    walBytes <= 0n || walBytes > BigInt(UNIT_WAL_BYTES_MAX)
  ) {
    throw corrupt(`the unit at content offset ${offset} is malformed`);
  }
  return { frameBytes, endOffset: Number(end) };
}
