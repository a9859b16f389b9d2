/**
 * Timeline history files (`0000000N.history`): one line per ancestor, `<timeline>\t<switch point>\t<reason>`, oldest first;
 * `#` starts a comment (PostgreSQL `src/backend/access/transam/timeline.c`).
 *
 * @module
 */

import { AppError } from "../base/failure.ts";
import { type Lsn, lsn, type TimelineId, timelineId } from "./lsn.ts";

/** An ancestor and where it was left. */
export interface TimelineSwitch {
  readonly timeline: TimelineId;
  /** First position that is NOT part of this ancestor. */
  readonly switchPoint: Lsn;
}

const LINE = /^\s*(\d{1,10})\s+([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})(?:\s|$)/;

/** Ancestors of the timeline whose history file this is, oldest first. Throws `corruption`. */
export function parseTimelineHistory(timeline: TimelineId, text: string): TimelineSwitch[] {
  const ancestors: TimelineSwitch[] = [];
  for (const line of text.split("\n")) {
    if (/^\s*(#|$)/.test(line)) continue;
    const match = LINE.exec(line);
    const number = Number(match?.[1] ?? 0);
    const previous = ancestors.at(-1)?.timeline ?? 0;
    if (match === null || number <= previous || number >= timeline) {
      throw new AppError(
        "corruption",
        `Read history of timeline ${timeline}: line "${
          line.slice(0, 80)
        }", wanted an ancestor greater than ${previous}, and its switch point`,
      );
    }
    const switchPoint = lsn((BigInt(`0x${match[2]}`) << 32n) + BigInt(`0x${match[3]}`));
    ancestors.push({ timeline: timelineId(number), switchPoint });
  }
  return ancestors;
}
