/**
 * The archive key under a password, exactly as `openssl enc -aes-256-cbc -pbkdf2 -iter 600000 -md sha256 -salt -base64`
 * writes it (FORMAT.md), so that one well-known command recovers it. The content is 64 hexadecimal digits and a newline.
 *
 * @module
 */

import { createCipheriv, createDecipheriv, pbkdf2Sync } from "node:crypto";

import { assert } from "../../base/assert.ts";
import { type Bytes, concat, equalBytes, fromUtf8, toHex, utf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { KEY_BYTES } from "./format.ts";

const ITERATIONS = 600_000;
const MAGIC = utf8("Salted__");
/** Random bytes that {@link encodeKeyFile} wants. */
export const KEY_FILE_SALT_BYTES = 8;
const LINE_CHARACTERS = 64;

function derive(password: string, salt: Uint8Array): { readonly key: Bytes; readonly iv: Bytes } {
  const bytes = concat([pbkdf2Sync(password, salt, ITERATIONS, 48, "sha256")]);
  return { key: bytes.slice(0, 32), iv: bytes.slice(32) };
}

/** The text of a key file. */
export function encodeKeyFile(
  archiveKey: Uint8Array,
  options: { readonly password: string; readonly salt: Uint8Array },
): string {
  assert(archiveKey.length === KEY_BYTES, "the archive key is 32 bytes");
  assert(options.salt.length === KEY_FILE_SALT_BYTES, "the salt is 8 bytes");
  const { key, iv } = derive(options.password, options.salt);
  const cipher = createCipheriv("aes-256-cbc", key, iv);
  const secret = concat([cipher.update(utf8(`${toHex(archiveKey)}\n`)), cipher.final()]);
  const text = concat([MAGIC, options.salt, secret]).toBase64();
  return text.replaceAll(new RegExp(`.{1,${LINE_CHARACTERS}}`, "g"), "$&\n");
}

/** The archive key. Throws `corruption` for another kind of file and `permission` for another password. */
export function decodeKeyFile(text: string, options: { readonly password: string }): Bytes {
  const body = decodeBase64(text);
  if (
    body === undefined || body.length !== MAGIC.length + KEY_FILE_SALT_BYTES + 80 ||
    !equalBytes(body.subarray(0, MAGIC.length), MAGIC)
  ) {
    throw new AppError(
      "corruption",
      "Decode archive key: wanted the base64 text that openssl enc -salt makes of 65 bytes",
    );
  }
  const secretStart = MAGIC.length + KEY_FILE_SALT_BYTES;
  const { key, iv } = derive(options.password, body.subarray(MAGIC.length, secretStart));
  try {
    const cipher = createDecipheriv("aes-256-cbc", key, iv);
    const plain = concat([cipher.update(body.subarray(secretStart)), cipher.final()]);
    const digits = /^([0-9a-f]{64})\n$/.exec(fromUtf8(plain))?.[1];
    if (digits !== undefined) return Uint8Array.fromHex(digits);
  } catch {
    // Wrong padding: the usual sign of a wrong password, told below together with the rarer one.
  }
  throw new AppError("permission", "Decrypt archive key: the encryption password does not fit", {
    hint: "give the server the password with which this archive was created",
  });
}

function decodeBase64(text: string): Bytes | undefined {
  try {
    return Uint8Array.fromBase64(text);
  } catch {
    return undefined;
  }
}
