/**
 * Places in a PostgreSQL data directory that a base backup treats specially (PostgreSQL 15-18,
 * `src/backend/backup/basebackup.c`; reference/klio.md 5.3). Paths are relative to the data directory.
 *
 * @module
 */

/** The control file: read last, written last. */
export const CONTROL_FILE = "global/pg_control";

/** Links to tablespaces, named by their OIDs. */
export const TABLESPACE_LINKS = "pg_tblspc";

/** Directories that a running server needs and whose contents do not outlive it. `pg_wal` may be a link to another volume. */
export const EMPTY_DIRECTORIES: ReadonlySet<string> = new Set([
  "pg_dynshmem",
  "pg_notify",
  "pg_replslot",
  "pg_serial",
  "pg_snapshots",
  "pg_stat_tmp",
  "pg_subtrans",
  "pg_wal",
]);

/** Directories of server logs and of an old name of `pg_wal`: kept when they exist, without their contents. */
export const LOG_DIRECTORIES: ReadonlySet<string> = new Set(["log", "pg_log", "pg_xlog"]);

/** Files of a server's life, of other backups and of other recoveries. */
export const TRANSIENT_FILES: ReadonlySet<string> = new Set([
  ".kopiaignore",
  "backup_label",
  "backup_label.old",
  "backup_manifest",
  "current_logfiles.tmp",
  "lost+found",
  "postgresql.auto.conf.tmp",
  "postmaster.opts",
  "postmaster.pid",
  "recovery.conf",
  "recovery.signal",
  "standby.signal",
  "tablespace_map",
  "tablespace_map.old",
]);
