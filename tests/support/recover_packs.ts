/**
 * Rebuilds the index from the packs alone: each ends in an encrypted local index of its contents (reference/kopia.md 3.6).
 * An independent way to the same contents. It may find more than the committed index: packs of
 * a session that died before its commit.
 *
 * @module
 */

import type { Waiting } from "../../src/base/abort.ts";
import { AppError, findAppError, isKind } from "../../src/base/failure.ts";
import { type IndexEntry, IndexImage } from "../../src/codec/kopia/index.ts";
import {
  decodePostamble,
  openLocalIndex,
  POSTAMBLE_BYTES_MAX,
} from "../../src/codec/kopia/pack.ts";
import type { BlobInfo, BlobStore } from "../../src/ports/blob_store.ts";
import type { ContentCodec } from "../../src/features/repository/content_codec.ts";

/** What one pack says of itself. */
export interface RecoveredPack {
  readonly blobId: string;
  readonly entries: readonly IndexEntry[];
  /** Why its local index cannot be read; then there are no entries. */
  readonly damage?: AppError;
}

/** Reads the local index of every pack; damaged packs are reported, other failures thrown. */
export async function* recoverPacks(
  deps: { readonly store: BlobStore; readonly codec: ContentCodec },
  options: Waiting,
): AsyncGenerator<RecoveredPack> {
  for (const prefix of ["p", "q"]) {
    for await (const blob of deps.store.list(prefix, options)) {
      try {
        yield { blobId: blob.id, entries: await recoverPack(deps, blob, options) };
      } catch (error) {
        const damage = findAppError(error);
        if (damage === undefined || !isKind(error, "corruption")) throw error;
        yield { blobId: blob.id, entries: [], damage };
      }
    }
  }
}

async function recoverPack(
  deps: { readonly store: BlobStore; readonly codec: ContentCodec },
  blob: BlobInfo,
  options: Waiting,
): Promise<IndexEntry[]> {
  const { store, codec } = deps;
  const { id, sizeBytes } = blob;
  const tailBytes = Math.min(POSTAMBLE_BYTES_MAX, sizeBytes);
  const tail = await store.get(id, {
    ...options,
    offset: sizeBytes - tailBytes,
    length: tailBytes,
  });
  const { iv, indexOffset, indexLength } = decodePostamble(tail);
  const bytes = await store.get(id, { ...options, offset: indexOffset, length: indexLength });
  const entries = [
    ...new IndexImage(openLocalIndex({ iv, bytes }, codec.hasher, codec.cipher)).entries(),
  ];
  for (const entry of entries) {
    if (entry.packBlobId === id && entry.packOffset + entry.packedLength <= indexOffset) continue;
    throw new AppError(
      "corruption",
      `Recover pack "${id}": it does not hold content "${entry.id}"`,
    );
  }
  return entries;
}
