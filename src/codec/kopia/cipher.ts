/**
 * Authenticated encryption of contents and whole blobs (reference/kopia.md 3.4). Every message has its own key, derived
 * from the master key and its IV, so a random 12-byte nonce can never repeat under one key. Layout: nonce, ciphertext,
 * tag (16); the IV is also the associated data, which binds the bytes to their name.
 *
 * The IV of a content or a whole blob is the LAST 16 bytes of its hash; only the local index of a pack uses the full
 * hash, hence the lower-level {@link ContentCipher.seal}.
 *
 * @module
 */

import { createCipheriv, createDecipheriv, createHmac, createSecretKey } from "node:crypto";
import { assert } from "../../base/assert.ts";
import type { Bytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { deriveKey } from "./kdf.ts";

/** Encrypts and decrypts under keys derived from one master key. */
export interface ContentCipher {
  /** As in the format blob. */
  readonly name: string;
  /** Bytes that sealing adds. */
  readonly overheadBytes: number;
  /** Seals a content named by `hash` (at least 16 bytes). `nonce` is 12 random bytes. Owned result. */
  encrypt(plain: Uint8Array, hash: Uint8Array, nonce: Uint8Array): Bytes;
  /** Opens what `encrypt` made; throws `corruption` when a bit differs or the hash is another one. */
  decrypt(sealed: Uint8Array, hash: Uint8Array): Bytes;
  /** As `encrypt`, with the IV given whole. */
  seal(plain: Uint8Array, iv: Uint8Array, nonce: Uint8Array): Bytes;
  /** As `decrypt`, with the IV given whole. */
  open(sealed: Uint8Array, iv: Uint8Array): Bytes;
}

/** Random bytes that every sealing needs. */
export const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const IV_BYTES = 16;

const ALGORITHMS = {
  "CHACHA20-POLY1305-HMAC-SHA256": "chacha20-poly1305",
  "AES256-GCM-HMAC-SHA256": "aes-256-gcm",
} as const;
type AeadName = typeof ALGORITHMS[keyof typeof ALGORITHMS];

/** The cipher of that name; throws `config` when we do not have it. */
export function contentCipher(name: string, masterKey: Uint8Array): ContentCipher {
  if (!isAlgorithm(name)) {
    throw new AppError("config", `Use encryption "${name}": not supported`, {
      hint: `supported: ${Object.keys(ALGORITHMS).join(", ")}`,
    });
  }
  const aead = ALGORITHMS[name];
  // The purpose stands in the place of the salt: so it is in the format.
  const secret = createSecretKey(
    deriveKey({ key: masterKey, salt: "encryption", info: "", sizeBytes: 32 }),
  );
  const keyOf = (iv: Uint8Array) => createHmac("sha256", secret).update(iv).digest();

  const seal = (plain: Uint8Array, iv: Uint8Array, nonce: Uint8Array) =>
    sealAead(aead, { key: keyOf(iv), nonce, associated: iv, plain });
  const open = (sealed: Uint8Array, iv: Uint8Array) => {
    const plain = openAead(aead, { key: keyOf(iv), associated: iv, sealed });
    if (plain === undefined) {
      throw new AppError("corruption", `Decrypt ${sealed.length} bytes: authentication failed`);
    }
    return plain;
  };
  return {
    name,
    overheadBytes: NONCE_BYTES + TAG_BYTES,
    seal,
    open,
    encrypt: (plain, hash, nonce) => seal(plain, ivOf(hash), nonce),
    decrypt: (sealed, hash) => open(sealed, ivOf(hash)),
  };
}

function isAlgorithm(name: string): name is keyof typeof ALGORITHMS {
  return Object.hasOwn(ALGORITHMS, name);
}

/** Borrowed view of the last 16 bytes of a hash. */
function ivOf(hash: Uint8Array): Uint8Array {
  if (hash.length < IV_BYTES) {
    throw new AppError(
      "protocol",
      `Derive an IV: hash has ${hash.length} bytes, wanted 16 or more`,
    );
  }
  return hash.subarray(hash.length - IV_BYTES);
}

/** nonce, ciphertext, tag in one array. `key` has 32 bytes, `nonce` 12. */
export function sealAead(
  aead: AeadName,
  message: {
    readonly key: Uint8Array;
    readonly nonce: Uint8Array;
    readonly associated: Uint8Array;
    readonly plain: Uint8Array;
  },
): Bytes {
  const { key, nonce, associated, plain } = message;
  assert(nonce.length === NONCE_BYTES, "a nonce has 12 bytes");
  const cipher = createCipher(aead, key, nonce);
  cipher.setAAD(associated);
  const sealed = new Uint8Array(NONCE_BYTES + plain.length + TAG_BYTES);
  sealed.set(nonce, 0);
  const body = cipher.update(plain);
  assert(body.length === plain.length, "the cipher is a stream cipher");
  sealed.set(body, NONCE_BYTES);
  cipher.final();
  sealed.set(cipher.getAuthTag(), NONCE_BYTES + plain.length);
  return sealed;
}

/** The plain bytes, or undefined when they are not authentic. */
export function openAead(
  aead: AeadName,
  message: {
    readonly key: Uint8Array;
    readonly associated: Uint8Array;
    readonly sealed: Uint8Array;
  },
): Bytes | undefined {
  const { key, associated, sealed } = message;
  if (sealed.length < NONCE_BYTES + TAG_BYTES) return undefined;
  const end = sealed.length - TAG_BYTES;
  const decipher = createDecipher(aead, key, sealed.subarray(0, NONCE_BYTES));
  decipher.setAAD(associated);
  decipher.setAuthTag(sealed.subarray(end));
  const plain = decipher.update(sealed.subarray(NONCE_BYTES, end));
  try {
    decipher.final();
  } catch {
    return undefined;
  }
  return owned(plain);
}

// The two overload sets of node:crypto share no common signature for both names.
function createCipher(aead: AeadName, key: Uint8Array, nonce: Uint8Array) {
  return aead === "aes-256-gcm"
    ? createCipheriv(aead, key, nonce, { authTagLength: TAG_BYTES })
    : createCipheriv(aead, key, nonce, { authTagLength: TAG_BYTES });
}

function createDecipher(aead: AeadName, key: Uint8Array, nonce: Uint8Array) {
  return aead === "aes-256-gcm"
    ? createDecipheriv(aead, key, nonce, { authTagLength: TAG_BYTES })
    : createDecipheriv(aead, key, nonce, { authTagLength: TAG_BYTES });
}

/** Plain bytes without a copy when the buffer belongs to them alone; a pooled buffer must not leak out. */
function owned(bytes: Uint8Array): Bytes {
  const { buffer } = bytes;
  return buffer instanceof ArrayBuffer && buffer.byteLength === bytes.length
    ? new Uint8Array(buffer)
    : new Uint8Array(bytes);
}
