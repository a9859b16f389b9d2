/**
 * Key derivation: the password gives the key of the format blob, the master key gives everything else
 * (reference/kopia.md 3.2). Deriving from a password is slow and takes 64 MiB on purpose: once per open.
 *
 * @module
 */

import { hkdfSync, pbkdf2Sync, scryptSync } from "node:crypto";
import type { Bytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";

/** Parameters of {@link deriveKey}. */
export interface DeriveKeyOptions {
  readonly key: Uint8Array;
  readonly salt: Uint8Array | string;
  readonly info: Uint8Array | string;
  readonly sizeBytes: number;
}

/** HKDF-SHA256. */
export function deriveKey(options: DeriveKeyOptions): Bytes {
  const { key, salt, info, sizeBytes } = options;
  return new Uint8Array(hkdfSync("sha256", key, salt, info, sizeBytes));
}

/** The default of new repositories. */
export const KEY_ALGO_SCRYPT = "scrypt-65536-8-1";
/** The other one that may be found. */
export const KEY_ALGO_PBKDF2 = "pbkdf2-sha256-600000";

const KEY_BYTES = 32;

/** The 32-byte key of the format blob; throws `config` for an unknown algorithm. */
export function formatEncryptionKey(
  keyAlgo: string,
  password: string,
  uniqueId: Uint8Array,
): Bytes {
  switch (keyAlgo) {
    case KEY_ALGO_SCRYPT: {
      const options = { N: 65536, r: 8, p: 1, maxmem: 128 << 20 };
      return new Uint8Array(scryptSync(password, uniqueId, KEY_BYTES, options));
    }
    case KEY_ALGO_PBKDF2:
      return new Uint8Array(pbkdf2Sync(password, uniqueId, 600_000, KEY_BYTES, "sha256"));
    default:
      throw new AppError("config", `Derive the key of the format blob: "${keyAlgo}" is unknown`, {
        hint: `supported: ${KEY_ALGO_SCRYPT}, ${KEY_ALGO_PBKDF2}`,
      });
  }
}
