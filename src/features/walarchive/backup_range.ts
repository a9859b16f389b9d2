/**
 * Which WAL files of a backup's range the archive does not hold complete yet. What is said to be complete is durable.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { AppError } from "../../base/failure.ts";
import { lsnAdd, lsnDistance, segmentName, segmentNameStart } from "../../domain/lsn.ts";
import type { BackupWalRange } from "../../ports/wal_server.ts";
import { parseSegment } from "./start.ts";
import { directoryOf, listSegments, type Storage, storedIfPresent } from "./storage.ts";

/** Segments of one backup that are looked at: 16 TiB of WAL in segments of 16 MiB. */
const BACKUP_SEGMENTS_MAX = 1 << 20;
/** More missing names than that help nobody. */
const MISSING_NAMES_MAX = 1000;

/** Names of the missing segments in order, at most {@link MISSING_NAMES_MAX}. Throws `usage` for a range that is none. */
export async function missingSegments(
  storage: Storage,
  clusterPath: string,
  range: BackupWalRange,
  options: Waiting,
): Promise<readonly string[]> {
  const { timeline, segmentSizeBytes } = range;
  const first = segmentNameStart(parseSegment(range.startWal).name, segmentSizeBytes);
  const last = segmentNameStart(parseSegment(range.endWal).name, segmentSizeBytes);
  const count = lsnDistance(first, last) / segmentSizeBytes + 1;
  if (count < 1 || count > BACKUP_SEGMENTS_MAX) {
    throw new AppError(
      "usage",
      `Close backup "${range.backupName}": "${range.startWal}" to "${range.endWal}" are ${count} segments, wanted 1 to ${BACKUP_SEGMENTS_MAX}`,
    );
  }
  const missing: string[] = [];
  let directory = "";
  let present = new Set<string>();
  for (let index = 0; index < count && missing.length < MISSING_NAMES_MAX; index++) {
    const position = lsnAdd(first, BigInt(index) * BigInt(segmentSizeBytes));
    const name = segmentName(timeline, position, segmentSizeBytes);
    const path = directoryOf(clusterPath, name);
    if (path !== directory) {
      options.signal.throwIfAborted();
      directory = path;
      present = await completeSegments(storage, path);
    }
    if (!present.has(name)) missing.push(name);
  }
  return missing;
}

async function completeSegments(storage: Storage, directory: string): Promise<Set<string>> {
  const segments = await listSegments(storage, directory);
  // A rename that was seen but never synced could be undone by a crash after we have told of it.
  await storedIfPresent("Sync WAL directory", storage.files.syncDirectory(directory));
  return new Set(segments.filter((segment) => segment.complete).map((segment) => segment.name));
}
