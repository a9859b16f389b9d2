/**
 * PostgreSQL as klio uses it: a physical replication session and an SQL session for base backups. Implementation:
 * `adapters/postgres`. Errors: `source` (unreachable, refused, too old: with a hint), `protocol` (unexpected message).
 *
 * @module
 */

import type { Waiting } from "../base/abort.ts";
import type { Lsn, TimelineId } from "../domain/lsn.ts";

/** Answer to IDENTIFY_SYSTEM. */
export interface SystemIdentification {
  readonly systemId: string;
  readonly timeline: TimelineId;
  readonly position: Lsn;
}

/** Answer to READ_REPLICATION_SLOT for a physical slot. */
export interface SlotState {
  /** Absent until the slot has reserved WAL, and when PostgreSQL has invalidated it: it then holds back nothing. */
  readonly restartLsn: Lsn | undefined;
  readonly restartTimeline: TimelineId | undefined;
}

/** A message of a running replication. Bytes are owned by the receiver. */
export type ReplicationMessage =
  | { readonly kind: "data"; readonly start: Lsn; readonly walEnd: Lsn; readonly bytes: Uint8Array }
  | { readonly kind: "keepalive"; readonly walEnd: Lsn; readonly replyRequested: boolean };

/** How a replication ended. */
export type ReplicationEnd =
  | { readonly kind: "timeline_switch"; readonly nextTimeline: TimelineId; readonly nextStart: Lsn }
  /** The server shut down or ended the stream in good order. */
  | { readonly kind: "ended" };

/** Standby status update. */
export interface StandbyStatus {
  readonly write: Lsn;
  readonly flush: Lsn;
  readonly apply: Lsn;
  readonly replyRequested: boolean;
}

/** A running START_REPLICATION. */
export interface Replication {
  /**
   * Batches of messages as they arrive; at least one message each. Reading is what takes bytes off the socket: not
   * reading is back-pressure. Ends when the server ends the copy; then `end` tells how.
   */
  batches(options: Waiting): AsyncIterable<readonly ReplicationMessage[]>;
  sendStatus(status: StandbyStatus): Promise<void>;
  /** After `batches` ended, or to stop early (sends CopyDone, discards what still arrives). */
  end(options: Waiting): Promise<ReplicationEnd>;
}

/** A replication connection. */
export interface ReplicationSession extends AsyncDisposable {
  /** For example 170002. */
  readonly serverVersion: number;
  identifySystem(options: Waiting): Promise<SystemIdentification>;
  segmentSizeBytes(options: Waiting): Promise<number>;
  /** `wal_sender_timeout`: a longer silence ends the connection; undefined when it is switched off. */
  senderTimeoutMs(options: Waiting): Promise<number | undefined>;
  /** `data_directory`; undefined when the role may not know it. */
  dataDirectory(options: Waiting): Promise<string | undefined>;
  /** undefined when the slot does not exist; `source` when it is logical. */
  readSlot(slot: string, options: Waiting): Promise<SlotState | undefined>;
  /** Creates a permanent physical slot that reserves WAL at once. */
  createSlot(slot: string, options: Waiting): Promise<void>;
  /** Drops a slot. Throws `source` while somebody streams from it, and when it does not exist. */
  dropSlot(slot: string, options: Waiting): Promise<void>;
  timelineHistory(
    timeline: TimelineId,
    options: Waiting,
  ): Promise<{ readonly fileName: string; readonly content: Uint8Array }>;
  /**
   * Throws `not_found`, here or from `batches`, when PostgreSQL has removed the WAL at the start: asking again does not
   * bring it back. Throws `conflict` when PostgreSQL has invalidated the slot.
   */
  startReplication(
    request: { readonly slot: string; readonly start: Lsn; readonly timeline: TimelineId },
    options: Waiting,
  ): Promise<Replication>;
}

/** Opens replication sessions. */
export interface ReplicationSource {
  connect(options: Waiting): Promise<ReplicationSession>;
}

/** A tablespace outside the data directory. */
export interface Tablespace {
  readonly oid: string;
  readonly name: string;
  readonly location: string;
}

/** What `pg_backup_stop` returns. */
export interface BackupStop {
  readonly lsn: Lsn;
  readonly backupLabel: string;
  readonly tablespaceMap: string;
}

/** One SQL session, kept open for the whole base backup (PostgreSQL aborts the backup when it closes). */
export interface BackupSession extends AsyncDisposable {
  readonly serverVersion: number;
  readonly systemId: string;
  readonly dataDirectory: string;
  readonly segmentSizeBytes: number;
  /** `initdb` data checksums. */
  readonly dataChecksums: boolean;
  tablespaces(options: Waiting): Promise<readonly Tablespace[]>;
  /** `pg_backup_start(label, fast)`; the start position. */
  startBackup(
    request: { readonly label: string; readonly fast: boolean },
    options: Waiting,
  ): Promise<Lsn>;
  /**
   * `pg_backup_stop(wait_for_archive => false)`: klio itself waits for the WAL. On a primary PostgreSQL then switches to a
   * new segment, so that the last one of the backup becomes complete; a standby depends on its primary for that.
   */
  stopBackup(options: Waiting): Promise<BackupStop>;
}

/** Opens SQL sessions for base backups. */
export interface BackupSource {
  connect(options: Waiting): Promise<BackupSession>;
}
