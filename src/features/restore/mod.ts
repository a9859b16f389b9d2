/**
 * Restore of base backups: public face.
 *
 * @module
 */

export { runRestore } from "./restore.ts";
export type {
  RecoverySettings,
  RestoreDeps,
  RestoreProgress,
  RestoreRequest,
  RestoreResult,
} from "./types.ts";
