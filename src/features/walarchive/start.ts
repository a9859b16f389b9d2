/**
 * Start negotiation: which segment a client should stream first. The archive's own needs come first; a hole is never
 * accepted here. A client whose PostgreSQL has removed that WAL starts later on its own account, which records a gap.
 *
 * @module
 */

import { fromUtf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import {
  historyName,
  LSN_MAX,
  lsnAdd,
  parseWalName,
  segmentName,
  segmentNameStart,
  segmentStart,
  type TimelineId,
  timelineId,
} from "../../domain/lsn.ts";
import { parseTimelineHistory } from "../../domain/timeline_history.ts";
import { readSmallFile } from "./small_file.ts";
import type { ClusterState } from "./state.ts";
import { clusterDirectory, latestSegment, type Storage, type StoredSegment } from "./storage.ts";

/** A segment's name and its timeline. */
export interface SegmentId {
  readonly name: string;
  readonly timeline: TimelineId;
}

/** Parses the name of a segment; `.partial` is dropped. Throws `usage`. */
export function parseSegment(name: string): SegmentId {
  const wal = parseWalName(name);
  if (wal.kind === "segment") return wal;
  throw new AppError("usage", `Use WAL file name "${name}": wanted the name of a segment`);
}

/**
 * Throws `usage` unless segments of this size include one of this name, with another one after it: names that do not
 * continue would be the end of the archive. PostgreSQL never comes near.
 */
export function checkContinuable(name: string, segmentSizeBytes: number): void {
  if (segmentNameStart(name, segmentSizeBytes) <= LSN_MAX - BigInt(segmentSizeBytes)) return;
  throw new AppError("usage", `Use WAL segment "${name}": it ends beyond the last WAL position`);
}

/** The segment that continues what is stored: the latest one again when it is partial, else the next. */
export function nextNeeded(latest: StoredSegment, state: ClusterState): string {
  if (!latest.complete) return latest.name;
  const size = state.segmentSizeBytes;
  if (size === undefined) {
    throw new AppError(
      "corruption",
      `Continue after "${latest.name}": its segment size is unknown`,
      {
        hint: "restore cluster.json of this cluster from a backup of the archive",
      },
    );
  }
  const timeline = timelineId(Number.parseInt(latest.name.slice(0, 8), 16));
  return segmentName(timeline, lsnAdd(segmentNameStart(latest.name, size), size), size);
}

/** Who asks, and what is known of it. */
export interface StartRequest {
  readonly cluster: string;
  readonly proposal: SegmentId;
  readonly state: ClusterState;
}

/** Name of the segment to start with. */
export async function negotiateStart(storage: Storage, request: StartRequest): Promise<string> {
  const { cluster, proposal, state } = request;
  const latest = await latestSegment(storage, clusterDirectory(storage.root, cluster));
  const gapEnd = state.gaps.map((gap) => gap.end).sort().at(-1);
  let answer = latest === undefined ? undefined : nextNeeded(latest, state);
  if (gapEnd !== undefined && (answer === undefined || gapEnd > answer)) answer = gapEnd;
  return answer === undefined ? proposal.name : await followSwitch(storage, request, answer);
}

/**
 * The next segment on the old timeline is beyond the point where the proposal's timeline left it when the old primary
 * was ahead of the promoted standby: nobody can stream that. Then the new timeline starts at the switch.
 */
async function followSwitch(
  storage: Storage,
  { cluster, proposal, state }: StartRequest,
  answer: string,
): Promise<string> {
  const { systemId, segmentSizeBytes: size } = state;
  const { timeline } = parseSegment(answer);
  if (size === undefined || timeline >= proposal.timeline) return answer;
  const name = historyName(proposal.timeline);
  const history = await readSmallFile(storage, { cluster, name, systemId });
  if (history === undefined) return answer;
  const ancestors = parseTimelineHistory(proposal.timeline, fromUtf8(history));
  const index = ancestors.findIndex((ancestor) => ancestor.timeline === timeline);
  const left = ancestors[index];
  if (left === undefined || segmentNameStart(answer, size) <= left.switchPoint) return answer;
  const next = ancestors[index + 1]?.timeline ?? proposal.timeline;
  return segmentName(next, segmentStart(left.switchPoint, size), size);
}
