/**
 * A Klio WAL server as its clients see it. Implementation: `adapters/grpc` (klio.wal.v1 and klio.stream.v1 over mTLS).
 * The certificate's cluster must equal `cluster` on every call, otherwise `permission`.
 *
 * @module
 */

import type { Waiting } from "../base/abort.ts";
import type { Lsn, TimelineId } from "../domain/lsn.ts";
import type { GapNames } from "../domain/wal_gap.ts";

/** Whose WAL. */
export interface WalStreamIdentity {
  readonly cluster: string;
  /** PostgreSQL's system identifier, decimal. */
  readonly systemId: string;
}

/** A gap that was recorded because PostgreSQL no longer had the WAL. */
export interface WalGap extends GapNames {
  readonly recordedAtMs: number;
}

/** What the server knows of a cluster. */
export interface ClusterWalMetadata {
  readonly systemId: string;
  readonly gaps: readonly WalGap[];
}

/** An open append stream: one writer per cluster; the server refuses a second with `conflict`. */
export interface WalAppendStream extends AsyncDisposable {
  /**
   * Position from which the server wants bytes: the start of a segment of `timeline`. Bytes of a segment that the server
   * already holds are sent again and compared there, never overwritten.
   */
  readonly start: Lsn;
  /**
   * True when the server confirms a segment only when it is whole, and the rest only at `finish`: between a commit and its
   * acknowledgement there may be hours.
   */
  readonly confirmsSegmentsOnly?: boolean;
  /**
   * Sends WAL bytes that follow what was sent before; they belong to the stream from here on. Waits while the transport is
   * full. `frame` is exactly these bytes as one unit frame (codec/walfile), where there is one already; the bytes then lie
   * within one segment. It spares compressing them again and changes nothing else.
   */
  send(
    position: Lsn,
    bytes: Uint8Array,
    options: Waiting & { readonly frame?: Uint8Array },
  ): Promise<void>;
  /**
   * Durable positions as they are acknowledged: every byte before it is on the server's disk, fsynced. Never goes back.
   * Ends when the stream ends; throws its failure.
   */
  acknowledgements(): AsyncIterable<Lsn>;
  /** No more bytes: the server makes the rest durable, acknowledges it and ends the stream. */
  finish(options: Waiting): Promise<void>;
}

/** One WAL file of the archive being read. */
export interface WalFileStream {
  /** Size that the file has when whole. A partial has fewer bytes. */
  readonly segmentSizeBytes: number;
  /** Owned blocks, in order. */
  readonly blocks: AsyncIterable<Uint8Array>;
}

/** A backup to close: asks whether every WAL file from start to end is complete. */
export interface BackupWalRange {
  readonly cluster: string;
  readonly backupName: string;
  readonly timeline: TimelineId;
  readonly startWal: string;
  readonly endWal: string;
  readonly segmentSizeBytes: number;
}

/** See the module comment. */
export interface WalServer {
  /**
   * Start negotiation: `proposal` is the WAL file name the client would start with; the answer is the one to start with.
   * Throws `conflict` when the archive of this cluster belongs to another system identifier.
   */
  requestStart(
    request: WalStreamIdentity & { readonly proposal: string },
    options: Waiting,
  ): Promise<string>;
  /**
   * Records the gap from the latest stored file to `proposal`, from which the stream then starts again; returns the name
   * to start with. `usage` when the archive is empty or already reaches beyond the proposal.
   */
  resetStream(
    request: WalStreamIdentity & { readonly proposal: string },
    options: Waiting,
  ): Promise<string>;
  /** Opens an append stream at `start`, which must be a segment start. */
  append(
    request: WalStreamIdentity & {
      readonly timeline: TimelineId;
      readonly start: Lsn;
      readonly segmentSizeBytes: number;
    },
    options: Waiting,
  ): Promise<WalAppendStream>;
  /** Stores a timeline history file; the same content again is success, another content is `conflict`. Durable when it resolves. */
  putHistory(
    request: WalStreamIdentity & { readonly timeline: TimelineId; readonly content: Uint8Array },
    options: Waiting,
  ): Promise<void>;
  /** `not_found` only when the server positively has no such file. `name` may end in `.partial`. */
  get(
    request: { readonly cluster: string; readonly name: string },
    options: Waiting,
  ): Promise<WalFileStream>;
  /** `not_found` for an unknown cluster. */
  metadata(cluster: string, options: Waiting): Promise<ClusterWalMetadata>;
  /** Names of the WAL files in the range that are not complete yet. */
  closeBackup(range: BackupWalRange, options: Waiting): Promise<readonly string[]>;
}
