/**
 * `klio stream-wal`: the role of the `klio-wal` container, as a process.
 *
 * @module
 */

import { formatLsn } from "../../domain/lsn.ts";
import {
  slotFields,
  STREAM_WAL_DEFAULTS,
  type StreamProgress,
  streamWal,
  type StreamWalConfig,
} from "../../features/walstream/mod.ts";
import { openLocalFiles } from "../../adapters/localfs/files.ts";
import { createReplicationSource } from "../../adapters/postgres/replication_source.ts";
import { AppError } from "../../base/failure.ts";
import { TaskGroup } from "../../base/task_group.ts";
import type { Logger } from "../../base/log.ts";
import { openWalServer } from "../clients.ts";
import type { RunCommand } from "../commands.ts";
import type { Settings } from "../settings.ts";

const STATUS_INTERVAL_MS = 60_000;

/** See the module comment. */
export const run: RunCommand = async (context) => {
  const { clock, random, signal } = context;
  const config = await context.loadConfig(["source", "client", "client.wal"]);
  const source = sourceSettings(config.source);
  const log = context.log.with({ component: "stream-wal", cluster: config.client.cluster_name });
  using server = await openWalServer(config, context);
  let latest: StreamProgress | undefined;
  await using tasks = new TaskGroup(signal);
  tasks.start(async (stopped) => {
    while (!stopped.aborted) {
      await clock.sleep(STATUS_INTERVAL_MS, { signal: stopped }).catch(ignoreAbort(stopped));
      if (latest?.state === "streaming") logProgress(log, "WAL is streaming", latest);
      else if (latest?.state === "connecting") logProgress(log, "WAL is not streaming", latest);
    }
  });
  await streamWal({
    source: createReplicationSource({ connectionString: config.source.dsn, clock }),
    server,
    files: openLocalFiles(),
    clock,
    random,
    log,
    onProgress: (progress) => {
      const before = latest?.state;
      latest = progress;
      if (progress.state === before) return;
      if (progress.state === "streaming") logProgress(log, "Streaming WAL", progress);
      if (progress.state === "stopped") logProgress(log, "Stopped streaming WAL", progress);
    },
  }, {
    ...STREAM_WAL_DEFAULTS,
    cluster: config.client.cluster_name,
    ...source,
  }, { signal });
};

/** Files of existing installations say 0 for a default. */
function sourceSettings(source: Settings<"source">["source"]): Partial<StreamWalConfig> {
  const { statusIntervalMs, sendBytesMax } = STREAM_WAL_DEFAULTS;
  const budgetBytes = source.slot_wal_budget_bytes || undefined;
  if (source.slot_release === "over_budget" && budgetBytes === undefined) {
    throw new AppError(
      "config",
      "Read configuration: source.slot_release is over_budget, wanted source.slot_wal_budget_bytes with it",
    );
  }
  return {
    slot: source.slot,
    statusIntervalMs: source.standby_message_timeout_seconds * 1000 || statusIntervalMs,
    holdMs: source.flush_timeout_ms,
    sendBytesMax: source.buffer_size || sendBytesMax,
    slotLimits: { budgetBytes, release: source.slot_release },
  };
}

function ignoreAbort(signal: AbortSignal): (error: unknown) => void {
  return (error) => {
    if (!signal.aborted) throw error;
  };
}

function logProgress(log: Logger, message: string, progress: StreamProgress): void {
  log.info(message, {
    system_id: progress.systemId,
    timeline: progress.timeline,
    received_lsn: formatLsn(progress.received),
    durable_lsn: formatLsn(progress.durable),
    received_bytes: progress.receivedBytes,
    flush_lag_ms_p50: progress.flushLag.p50Ms,
    flush_lag_ms_p99: progress.flushLag.p99Ms,
    failures: progress.failures,
    ...(progress.lastError === undefined ? {} : { last_error: progress.lastError }),
    ...(progress.slot === undefined ? {} : slotFields(progress.slot)),
  });
}
