/**
 * Timeline history and backup label files: a few hundred bytes each, stored whole in the same container as segments. The
 * caller lets one in at a time per cluster.
 *
 * @module
 */

import { type Bytes, concat, equalBytes } from "../../base/bytes.ts";
import { AppError, isKind } from "../../base/failure.ts";
import { encodeWalFile } from "../../codec/walfile/encoder.ts";
import { SALT_BYTES } from "../../codec/walfile/format.ts";
import type { WalFileUpload } from "../../ports/wal_archive.ts";
import { clusterDirectory, filePath, type Storage, stored } from "./storage.ts";
import { WalFileReader } from "./wal_file.ts";

/** A bound for what a peer may send. */
const SMALL_FILE_BYTES_MAX = 1 << 20;

/** Which file. */
export interface SmallFile {
  readonly cluster: string;
  readonly name: string;
  readonly systemId: string;
}

/** The content; undefined when there is no such file. Throws `corruption`. */
export async function readSmallFile(
  storage: Storage,
  { cluster, name, systemId }: SmallFile,
): Promise<Bytes | undefined> {
  const path = filePath(clusterDirectory(storage.root, cluster), name);
  let opened: WalFileReader;
  try {
    opened = await WalFileReader.open(storage, path, { systemId, name, partial: false });
  } catch (error) {
    if (isKind(error, "not_found")) return undefined;
    throw error;
  }
  await using reader = opened;
  const blocks: Bytes[] = [];
  for (let block = await reader.next(); block !== undefined; block = await reader.next()) {
    blocks.push(block);
  }
  return concat(blocks);
}

/** Stores a file durably. The same content again is success. Throws `conflict` when the archive holds another. */
export async function putSmallFile(
  storage: Storage,
  file: SmallFile & { readonly content: Uint8Array },
): Promise<void> {
  const { cluster, name, systemId, content } = file;
  if (content.length > SMALL_FILE_BYTES_MAX) throw tooLarge(name);
  const present = await readSmallFile(storage, file);
  if (present !== undefined && !equalBytes(present, content)) {
    throw new AppError(
      "conflict",
      `Store WAL file "${name}" of cluster "${cluster}": the archive holds another content`,
      { hint: "two databases may be writing under this cluster's name; nothing was changed" },
    );
  }
  const { archiveKey, files, random, root } = storage;
  const clusterPath = clusterDirectory(root, cluster);
  if (present !== undefined) {
    // Whoever renamed it may have died before the directory was synced.
    await stored("Sync cluster directory", files.syncDirectory(clusterPath));
    return;
  }
  const encoded = encodeWalFile({
    archiveKey,
    salt: random.bytes(SALT_BYTES),
    description: { systemId, name, sizeBytes: content.length },
  }, content);
  await stored(
    "Write WAL file",
    files.writeFileAtomic(filePath(clusterPath, name), encoded, 0o600),
  );
}

/** The content of an upload, which must be whole. Throws `exhausted` and `protocol`. */
export async function collectSmallFile(
  { name, blocks, segmentSizeBytes }: WalFileUpload,
): Promise<Bytes> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const block of blocks) {
    size += block.length;
    if (size > SMALL_FILE_BYTES_MAX) throw tooLarge(name);
    parts.push(block.slice());
  }
  if (size !== segmentSizeBytes) {
    throw new AppError(
      "protocol",
      `Store WAL file "${name}": got ${size} bytes, wanted all ${segmentSizeBytes}`,
    );
  }
  return concat(parts);
}

function tooLarge(name: string): AppError {
  return new AppError(
    "exhausted",
    `Store WAL file "${name}": more than ${SMALL_FILE_BYTES_MAX} bytes, which no such file has`,
  );
}
