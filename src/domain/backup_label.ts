/**
 * The `backup_label` file (PostgreSQL 15-18, `src/backend/access/transam/xlogbackup.c`): what recovery starts from. The
 * timeline of a backup is the one named here; the control file of a standby may still name an older one.
 *
 * @module
 */

import { AppError } from "../base/failure.ts";
import { type Lsn, parseLsn, type TimelineId, timelineId } from "./lsn.ts";

/** The fields that klio relies on. */
export interface BackupLabel {
  readonly startLsn: Lsn;
  readonly timeline: TimelineId;
}

/** Reads a label. Throws `protocol`: PostgreSQL has just written it. */
export function parseBackupLabel(text: string): BackupLabel {
  const start = /^START WAL LOCATION: ([0-9A-F]{1,8}\/[0-9A-F]{1,8}) /m.exec(text)?.[1];
  const timeline = Number(/^START TIMELINE: (\d{1,10})$/m.exec(text)?.[1]);
  if (start === undefined || !(timeline >= 1 && timeline <= 0xffff_ffff)) {
    throw new AppError(
      "protocol",
      "Read backup label: wanted lines START WAL LOCATION and START TIMELINE",
    );
  }
  return { startLsn: parseLsn(start), timeline: timelineId(timeline) };
}
