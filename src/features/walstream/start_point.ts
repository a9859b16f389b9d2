/**
 * Where to start streaming: what to propose to the server, and what to make of its answer. The server's answer decides,
 * except where PostgreSQL has left the answered timeline before the answered segment: an old primary had shipped WAL that
 * never became part of this history. Then streaming starts where the histories part, on the younger timeline.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";
import {
  formatLsn,
  type Lsn,
  parseWalName,
  segmentName,
  segmentNameStart,
  segmentStart,
  type TimelineId,
} from "../../domain/lsn.ts";
import type { TimelineSwitch } from "../../domain/timeline_history.ts";
import type { SlotState, SystemIdentification } from "../../ports/postgres.ts";

/** A segment start on a timeline. */
export interface StartPoint {
  readonly timeline: TimelineId;
  readonly start: Lsn;
}

/** Name of the segment to propose: where the slot holds WAL, on the timeline it was written on, else where PostgreSQL is. */
export function proposeStart(
  system: SystemIdentification,
  slot: SlotState | undefined,
  segmentSizeBytes: number,
): string {
  return slot?.restartLsn === undefined
    ? segmentName(system.timeline, system.position, segmentSizeBytes)
    : segmentName(slot.restartTimeline ?? system.timeline, slot.restartLsn, segmentSizeBytes);
}

/** Takes the answered name apart; `.partial` is dropped. Throws `protocol`. */
export function parseAnswer(answer: string, segmentSizeBytes: number): StartPoint {
  try {
    const name = parseWalName(answer);
    if (name.kind === "segment") {
      return { timeline: name.timeline, start: segmentNameStart(name.name, segmentSizeBytes) };
    }
  } catch (error) {
    throw new AppError("protocol", `Negotiate start: the server answered "${answer}"`, {
      cause: error,
    });
  }
  throw new AppError(
    "protocol",
    `Negotiate start: the server answered "${answer}", wanted the name of a segment`,
  );
}

/**
 * The answer, moved into PostgreSQL's history where it lies outside. `ancestors` are those of PostgreSQL's own timeline.
 * Throws `source` when PostgreSQL does not know the answered timeline.
 */
export function enterHistory(
  answer: StartPoint,
  system: SystemIdentification,
  ancestors: readonly TimelineSwitch[],
  segmentSizeBytes: number,
): StartPoint {
  if (answer.timeline === system.timeline) return answer;
  const index = ancestors.findIndex((a) => a.timeline === answer.timeline);
  const left = ancestors[index];
  if (left === undefined) {
    throw new AppError(
      "source",
      `Stream timeline ${answer.timeline} from ${
        formatLsn(answer.start)
      }: PostgreSQL is on timeline ${system.timeline} and does not descend from it`,
      {
        hint:
          "this PostgreSQL is older than the archive, or another branch: check which one is the primary",
      },
    );
  }
  if (answer.start <= left.switchPoint) return answer;
  const next = ancestors[index + 1]?.timeline ?? system.timeline;
  const start = segmentStart(left.switchPoint, segmentSizeBytes);
  return enterHistory({ timeline: next, start }, system, ancestors, segmentSizeBytes);
}
