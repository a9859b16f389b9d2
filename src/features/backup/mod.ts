/**
 * Base backups: public face.
 *
 * @module
 */

export { runBackup } from "./backup.ts";
export type {
  BackupDeps,
  BackupProgress,
  BackupRequest,
  BackupResult,
  BackupStatistics,
} from "./types.ts";
