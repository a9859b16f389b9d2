/**
 * What the catalogue knows of backups.
 *
 * @module
 */

import type { DirectoryEntry } from "../../codec/kopia/directory.ts";
import type { BackupMetadata } from "../../domain/backup.ts";

/** One Kopia snapshot of a backup. */
export interface BackupPart {
  readonly manifestId: string;
  readonly content: "pgdata" | "tablespace" | "controldata";
  /** Only of a tablespace. */
  readonly tablespaceName: string | undefined;
  readonly root: DirectoryEntry;
}

/** A backup with its commit record. */
export interface CatalogBackup {
  readonly metadata: BackupMetadata;
  readonly parts: readonly BackupPart[];
  /** Empty: complete. Otherwise for people: `missing pgdata`. */
  readonly problems: readonly string[];
  /** Bytes and files of all parts that exist. */
  readonly sizeBytes: number;
  readonly files: number;
}

/** A commit record that cannot be used. */
export interface UnreadableBackup {
  readonly manifestId: string;
  /** As its label says. */
  readonly name: string;
  readonly error: unknown;
}

/** See the module comment of `catalog.ts`. */
export interface Catalog {
  /** Oldest first. */
  readonly backups: readonly CatalogBackup[];
  readonly unreadable: readonly UnreadableBackup[];
}
