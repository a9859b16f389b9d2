/**
 * What goes into a restore and what comes out of it.
 *
 * @module
 */

import type { Logger } from "../../base/log.ts";
import type { BackupMetadata } from "../../domain/backup.ts";
import type { RecoveryTarget } from "../../domain/recovery_target.ts";
import type { Clock } from "../../base/clock.ts";
import type { Files } from "../../ports/files.ts";
import type { RepositorySession } from "../../ports/repository_session.ts";

/** The world as a restore sees it. `repository` is owned by the caller and not closed. */
export interface RestoreDeps {
  readonly repository: RepositorySession;
  readonly files: Files;
  readonly clock: Clock;
  readonly log: Logger;
}

/** One restore. */
export interface RestoreRequest {
  /** Cluster that took the backup. */
  readonly cluster: string;
  /** undefined: chosen by the target. */
  readonly backupName?: string;
  readonly target: RecoveryTarget;
  /** Absolute; absent or empty, otherwise `conflict`. */
  readonly targetDirectory: string;
  /** Tablespace name to absolute path; others go to their original path. Each absent or empty. */
  readonly tablespacePaths: ReadonlyMap<string, string>;
  /** Owner of everything; undefined leaves the owner to the process (only root may give files away). */
  readonly owner?: { readonly uid: number; readonly gid: number };
  /** Recovery settings and `recovery.signal`; undefined writes neither: somebody else configures recovery. */
  readonly recovery?: RecoverySettings;
  /** Files written at the same time. */
  readonly parallelFiles: number;
  /** Called often, synchronously: throttle what is shown. */
  readonly onProgress?: (progress: RestoreProgress) => void;
}

/** How PostgreSQL shall recover. */
export interface RecoverySettings {
  /** With `%f` and `%p`, as PostgreSQL wants it. */
  readonly restoreCommand: string;
  readonly targetAction: "promote" | "pause" | "shutdown";
  /** `latest`, `current` or a decimal timeline id. */
  readonly targetTimeline: string;
}

/** Where a restore is. Totals are exact. */
export interface RestoreProgress {
  readonly phase: "choosing" | "writing" | "finishing" | "done";
  readonly bytes: number;
  readonly bytesTotal: number;
  readonly files: number;
  readonly filesTotal: number;
}

/** A data directory that PostgreSQL can be started on. */
export interface RestoreResult {
  readonly metadata: BackupMetadata;
  readonly bytes: number;
  readonly files: number;
  readonly seconds: number;
}
