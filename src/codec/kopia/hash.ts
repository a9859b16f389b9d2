/**
 * Content hashes: the name of a content is its keyed hash, so the hash function is part of the repository's format
 * (reference/kopia.md 3.3). Only the HMAC family is built in: it is what we create, it needs no WebAssembly and runs at
 * memory speed on CPUs with SHA extensions.
 *
 * @module
 */

import { createHmac, createSecretKey } from "node:crypto";
import type { Bytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";

/** A keyed hash. */
export interface ContentHasher {
  /** As in the format blob: `HMAC-SHA256-128`. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Owned bytes of length `sizeBytes`. */
  hash(data: Uint8Array): Bytes;
}

const SIZE_BYTES: Readonly<Record<string, number>> = {
  "HMAC-SHA256": 32,
  "HMAC-SHA256-128": 16,
};

/** The hash function of that name, keyed with the repository's HMAC secret. Throws `config` when we do not have it. */
export function contentHasher(name: string, secret: Uint8Array): ContentHasher {
  const sizeBytes = SIZE_BYTES[name];
  if (sizeBytes === undefined) {
    throw new AppError("config", `Use content hash "${name}": not supported`, {
      hint: `supported: ${Object.keys(SIZE_BYTES).join(", ")}`,
    });
  }
  const key = createSecretKey(secret);
  return {
    name,
    sizeBytes,
    hash: (data) =>
      new Uint8Array(createHmac("sha256", key).update(data).digest().subarray(0, sizeBytes)),
  };
}
