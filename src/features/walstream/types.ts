/**
 * What the streamer needs, what it is told, and what it tells about itself.
 *
 * @module
 */

import type { Clock, Random } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Backoff } from "../../base/retry.ts";
import type { Lsn, TimelineId } from "../../domain/lsn.ts";
import type { ReplicationSource } from "../../ports/postgres.ts";
import type { Files } from "../../ports/files.ts";
import type { WalServer } from "../../ports/wal_server.ts";
import type { SlotLimits, SlotStatus } from "./slot_governor.ts";

/** Capabilities of {@link streamWal}. */
export interface StreamWalDeps {
  readonly source: ReplicationSource;
  readonly server: WalServer;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Of the machine that PostgreSQL runs on, to see how full its disk is; absent elsewhere. */
  readonly files?: Pick<Files, "stat" | "space">;
  /** Called after every change of {@link StreamProgress}, with a snapshot; must return at once and not throw. */
  readonly onProgress?: (progress: StreamProgress) => void;
}

/** Settings of {@link streamWal}; {@link STREAM_WAL_DEFAULTS} has all but the cluster. */
export interface StreamWalConfig {
  readonly cluster: string;
  /**
   * Physical replication slot; created when absent. Dropped, and created anew, only when it holds back nothing any more or
   * when `slotLimits` say so.
   */
  readonly slot: string;
  /**
   * `standby_message_timeout_seconds`: longest silence towards PostgreSQL, also while the server stalls. A third of
   * `wal_sender_timeout` when that is less.
   */
  readonly statusIntervalMs: number;
  /** `flush_timeout_ms`: how long WAL may be held so that more joins it; 0 sends what one reading brought at once. */
  readonly holdMs: number;
  /** `buffer_size`: what is joined before it is sent, at most. */
  readonly sendBytesMax: number;
  readonly slotLimits: SlotLimits;
  readonly slotWatchIntervalMs: number;
  /** How long a clean end may take before the connections are simply closed. */
  readonly drainTimeoutMs: number;
  /** Waiting between connections that failed. */
  readonly backoff: Backoff;
  /** Longest of these waits while another writer has the stream: whoever waits for it takes over soon after it is gone. */
  readonly heldBackoffMsMax: number;
}

/** Defaults of {@link StreamWalConfig}. */
export const STREAM_WAL_DEFAULTS = {
  slot: "klio",
  statusIntervalMs: 10_000,
  holdMs: 0,
  sendBytesMax: 1 << 20,
  slotLimits: { budgetBytes: undefined, release: "never" },
  slotWatchIntervalMs: 10_000,
  drainTimeoutMs: 10_000,
  backoff: { firstMs: 250, maxMs: 5_000 },
  heldBackoffMsMax: 2000,
} as const satisfies Omit<StreamWalConfig, "cluster">;

/** Life of the streamer. `connecting` is also where it waits before the next try. */
export type StreamState =
  | "starting"
  | "connecting"
  | "streaming"
  | "draining"
  | "stopped"
  | "failed";

/** Distribution of the time from receiving a byte to its acknowledgement, over the latest samples. */
export interface FlushLag {
  readonly samples: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** A snapshot for status and metrics. */
export interface StreamProgress {
  readonly state: StreamState;
  /** undefined until the first IDENTIFY_SYSTEM. */
  readonly systemId: string | undefined;
  readonly timeline: TimelineId | undefined;
  /** End of what was received from PostgreSQL; `0/0` before anything. */
  readonly received: Lsn;
  /** End of what the Klio server has acknowledged as durable; `0/0` before anything. */
  readonly durable: Lsn;
  /** What PostgreSQL was told as flushed; `0/0` means nothing yet. Never beyond `durable`, within a timeline. */
  readonly reported: Lsn;
  /** End of WAL on PostgreSQL, as it last said. */
  readonly walEnd: Lsn;
  /** Bytes received since the start of the streamer, repeated ones included. */
  readonly receivedBytes: number;
  readonly flushLag: FlushLag;
  /** undefined until it was looked at. */
  readonly slot: SlotStatus | undefined;
  /** Connections that ended before they were asked to. */
  readonly failures: number;
  /** One line about the latest failure; undefined while streaming. */
  readonly lastError: string | undefined;
}
