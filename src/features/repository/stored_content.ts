/**
 * Reads one content out of its pack.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import type { Bytes } from "../../base/bytes.ts";
import { AppError, isKind } from "../../base/failure.ts";
import type { IndexEntry } from "../../codec/kopia/index.ts";
import type { BlobStore } from "../../ports/blob_store.ts";
import type { ContentCodec } from "./content_codec.ts";

/** The plain content, owned. `corruption` when its pack is absent or too short, or its bytes are not what the id says. */
export async function readStoredContent(
  deps: { readonly store: BlobStore; readonly codec: ContentCodec },
  entry: IndexEntry,
  options: Waiting,
): Promise<Bytes> {
  const { id, packBlobId, packOffset, packedLength, encryptionKeyId } = entry;
  if (encryptionKeyId !== 0) {
    throw new AppError("corruption", `Read content "${id}": its key is ${encryptionKeyId}, not 0`);
  }
  let sealed: Bytes;
  try {
    sealed = await deps.store.get(packBlobId, {
      ...options,
      offset: packOffset,
      length: packedLength,
    });
  } catch (cause) {
    if (!isKind(cause, "not_found")) throw cause;
    throw new AppError("corruption", `Read content "${id}": its pack "${packBlobId}" is missing`, {
      cause,
    });
  }
  return deps.codec.open(entry, sealed);
}
