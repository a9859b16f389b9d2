/**
 * What goes into a base backup and what comes out of it.
 *
 * @module
 */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { BackupMetadata } from "../../domain/backup.ts";
import type { Identity } from "../../domain/identity.ts";
import type { Files } from "../../ports/files.ts";
import type { BackupSource } from "../../ports/postgres.ts";
import type { RepositorySession } from "../../ports/repository_session.ts";
import type { WalServer } from "../../ports/wal_server.ts";

/** The world as a backup sees it. `repository` is owned by the caller and not closed. */
export interface BackupDeps {
  readonly source: BackupSource;
  readonly files: Files;
  readonly repository: RepositorySession;
  readonly wal: Pick<WalServer, "closeBackup" | "metadata">;
  readonly clock: Clock;
  readonly log: Logger;
}

/** One backup to take. */
export interface BackupRequest {
  /** Of the client certificate: user and host of the snapshots. */
  readonly identity: Identity;
  /** undefined: `backup-YYYYMMDDHHMMSS`, UTC. */
  readonly name?: string;
  /** Files read at the same time. */
  readonly parallelFiles: number;
  /** How long to wait until the WAL of the backup is in the archive. */
  readonly walTimeoutMs: number;
  /** Called often, synchronously: throttle what is shown. */
  readonly onProgress?: (progress: BackupProgress) => void;
}

/** Where a backup is. Totals come from a walk before the copy: files that come and go make them estimates. */
export interface BackupProgress {
  readonly phase: "measuring" | "copying" | "committing" | "waiting_for_wal" | "done";
  readonly bytes: number;
  readonly bytesTotal: number;
  readonly files: number;
  readonly filesTotal: number;
}

/** What a backup cost. */
export interface BackupStatistics {
  /** Regular files stored, and their bytes. */
  readonly files: number;
  readonly bytes: number;
  /** Bytes that were sent, and those that the repository already had. With small metadata, so the sum exceeds `bytes`. */
  readonly newBytes: number;
  readonly deduplicatedBytes: number;
  /** Files that vanished between listing and reading: normal on a running system. */
  readonly vanishedFiles: number;
  readonly seconds: number;
}

/** A backup that can be restored. */
export interface BackupResult {
  readonly metadata: BackupMetadata;
  readonly statistics: BackupStatistics;
}
