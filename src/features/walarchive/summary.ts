/**
 * What the archive holds, per cluster: for `klio status` and metrics.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { type Lsn, lsnAdd, segmentNameStart, segmentOffset } from "../../domain/lsn.ts";
import type { WalGap } from "../../ports/wal_server.ts";
import { listClusters } from "./recovery.ts";
import { loadState } from "./state.ts";
import {
  clusterDirectory,
  latestSegment,
  listSegmentDirectories,
  listSegments,
  partialPath,
  type Storage,
  storedIfPresent,
} from "./storage.ts";
import { WalFileReader } from "./wal_file.ts";

/** One cluster of the archive. */
export interface ClusterSummary {
  readonly cluster: string;
  readonly systemId: string;
  /** Unknown until the first WAL. */
  readonly segmentSizeBytes: number | undefined;
  /** Complete segments. */
  readonly segments: number;
  readonly firstSegment: string | undefined;
  readonly lastSegment: string | undefined;
  /** WAL bytes in them and in the last partial. */
  readonly rawBytes: number;
  /** What they take on disk. */
  readonly storedBytes: number;
  /** End of the WAL on the latest timeline. */
  readonly durable: Lsn | undefined;
  readonly gaps: readonly WalGap[];
}

/** Where the summary learns of open streams. */
export interface SummaryOptions extends Waiting {
  /** The durable position of the open append stream of a cluster. */
  streaming(cluster: string): Lsn | undefined;
}

/** See the module comment. */
export async function summarize(
  storage: Storage,
  options: SummaryOptions,
): Promise<readonly ClusterSummary[]> {
  const summaries: ClusterSummary[] = [];
  for (const cluster of await listClusters(storage)) {
    options.signal.throwIfAborted();
    const summary = await summarizeCluster(storage, cluster, options);
    if (summary !== undefined) summaries.push(summary);
  }
  return summaries;
}

async function summarizeCluster(
  storage: Storage,
  cluster: string,
  options: SummaryOptions,
): Promise<ClusterSummary | undefined> {
  const state = await loadState(storage, cluster);
  if (state === undefined) return undefined;
  const { systemId, segmentSizeBytes, gaps } = state;
  const clusterPath = clusterDirectory(storage.root, cluster);
  const names: string[] = [];
  let storedBytes = 0;
  for (const directory of await listSegmentDirectories(storage, clusterPath)) {
    options.signal.throwIfAborted();
    const path = `${clusterPath}/${directory}`;
    for (const segment of await listSegments(storage, path)) {
      const file = `${path}/${segment.name}${segment.complete ? "" : ".partial"}`;
      // Undefined: it became complete, or was deleted, since the listing.
      const info = await storedIfPresent("Stat WAL file", storage.files.stat(file));
      storedBytes += info?.sizeBytes ?? 0;
      if (segment.complete) names.push(segment.name);
    }
  }
  const streaming = options.streaming(cluster);
  const tail = streaming === undefined || segmentSizeBytes === undefined
    ? await lastBytes(storage, clusterPath, { systemId, segmentSizeBytes })
    : { end: streaming, partialBytes: segmentOffset(streaming, segmentSizeBytes) };
  return {
    cluster,
    systemId,
    segmentSizeBytes,
    segments: names.length,
    firstSegment: names[0],
    lastSegment: names.at(-1),
    rawBytes: names.length * (segmentSizeBytes ?? 0) + (tail?.partialBytes ?? 0),
    storedBytes,
    durable: tail?.end,
    gaps,
  };
}

/** Where the latest segment ends; a partial is read and verified for that. */
async function lastBytes(
  storage: Storage,
  clusterPath: string,
  known: { readonly systemId: string; readonly segmentSizeBytes: number | undefined },
): Promise<{ readonly end: Lsn; readonly partialBytes: number } | undefined> {
  const { systemId, segmentSizeBytes } = known;
  const latest = await latestSegment(storage, clusterPath);
  if (latest === undefined || segmentSizeBytes === undefined) return undefined;
  const start = segmentNameStart(latest.name, segmentSizeBytes);
  const whole = { end: lsnAdd(start, segmentSizeBytes), partialBytes: 0 };
  if (latest.complete) return whole;
  const expected = { systemId, name: latest.name, partial: true };
  const opened = await storedIfPresent(
    "Read last partial",
    WalFileReader.open(storage, partialPath(clusterPath, latest.name), expected),
  );
  if (opened === undefined) return whole; // it became complete meanwhile
  await using reader = opened;
  let partialBytes = 0;
  for (let block = await reader.next(); block !== undefined; block = await reader.next()) {
    partialBytes += block.length;
  }
  return { end: lsnAdd(start, partialBytes), partialBytes };
}
