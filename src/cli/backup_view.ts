/**
 * A backup as list and show present it. The state is asked, never assumed: `complete` means that all parts are in the
 * repository and every WAL file from start to end is complete in the archive; how far recovery gets when WAL after the
 * backup is lost is told with it.
 *
 * @module
 */

import type { Waiting } from "../base/abort.ts";
import { encodeBackupMetadata } from "../domain/backup.ts";
import { gapAfter, gapOver } from "../domain/wal_gap.ts";
import type { CatalogBackup } from "../features/catalog/mod.ts";
import type { WalServer } from "../ports/wal_server.ts";

/**
 * `complete`, `complete, recovery ends at the WAL gap after 0000…`, `incomplete: missing pgdata`, `waiting for WAL: 3 files,
 * first 0000…`, or `damaged: WAL is lost, first 0000…`.
 */
export async function backupState(
  backup: CatalogBackup,
  wal: Pick<WalServer, "closeBackup" | "metadata">,
  options: Waiting,
): Promise<string> {
  if (backup.problems.length > 0) return `incomplete: ${backup.problems.join(", ")}`;
  const { metadata } = backup;
  const missing = await wal.closeBackup({
    cluster: metadata.clusterName,
    backupName: metadata.name,
    timeline: metadata.timeline,
    startWal: metadata.startWal,
    endWal: metadata.endWal,
    segmentSizeBytes: metadata.segmentSizeBytes,
  }, options);
  const { gaps } = await wal.metadata(metadata.clusterName, options);
  const lost = missing.find((name) => gapOver(gaps, name) !== undefined);
  if (lost !== undefined) return `damaged: WAL is lost, first ${lost}`;
  if (missing.length > 0) return `waiting for WAL: ${missing.length} files, first ${missing[0]}`;
  const next = gapAfter(gaps, metadata.endWal);
  return next === undefined
    ? "complete"
    : `complete, recovery ends at the WAL gap after ${next.start}`;
}

/** The metadata document with state and sizes beside it, as JSON text (LSNs exceed what JSON.stringify can do). */
export function backupJson(backup: CatalogBackup, state: string): string {
  const document = encodeBackupMetadata(backup.metadata);
  const extra = JSON.stringify({ state, sizeBytes: backup.sizeBytes, files: backup.files });
  return `${document.slice(0, -1)},${extra.slice(1)}`;
}
