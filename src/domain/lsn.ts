/**
 * Log sequence numbers, timelines and WAL file names, for every segment size PostgreSQL allows (powers of two from 1 MiB
 * to 1 GiB; `src/include/access/xlog_internal.h`, PostgreSQL 15-18). LSNs are unsigned 64-bit and therefore bigint from
 * end to end; all arithmetic on them is in this file.
 *
 * @module
 */

import { assert } from "../base/assert.ts";
import { AppError } from "../base/failure.ts";

/** Byte position in the WAL: unsigned 64 bit. */
export type Lsn = bigint & { readonly __lsn: unique symbol };
/** Timeline id: 1 to 2^32 - 1. */
export type TimelineId = number & { readonly __timeline: unique symbol };

/** Highest position that 64 bits hold. */
export const LSN_MAX = (1n << 64n) - 1n;
const LOG_ID_BYTES = 1n << 32n;
/** Smallest and largest segment size PostgreSQL allows, in bytes. */
export const SEGMENT_SIZE_BYTES_MIN = 1 << 20;
/** See {@link SEGMENT_SIZE_BYTES_MIN}. */
export const SEGMENT_SIZE_BYTES_MAX = 1 << 30;

/** `0/0`: what PostgreSQL calls an invalid LSN. */
export const LSN_ZERO = 0n as Lsn;

/** A bigint as an LSN; a value out of range is a bug of the caller. */
export function lsn(value: bigint): Lsn {
  assert(value >= 0n && value <= LSN_MAX, "an LSN fits 64 bits");
  return value as Lsn;
}

/** `base` advanced by a number of bytes. */
export function lsnAdd(base: Lsn, bytes: number | bigint): Lsn {
  return lsn(base + BigInt(bytes));
}

/** Bytes from `from` up to `to`; negative when `to` is behind. Exact up to 2^53. */
export function lsnDistance(from: Lsn, to: Lsn): number {
  return Number(to - from);
}

/** The greater of two positions. */
export function lsnMax(a: Lsn, b: Lsn): Lsn {
  return a > b ? a : b;
}

/** The lesser of two positions. */
export function lsnMin(a: Lsn, b: Lsn): Lsn {
  return a < b ? a : b;
}

/** The upper and lower 32 bits, for loops that cannot afford bigint. */
export function lsnHalves(position: Lsn): readonly [high: number, low: number] {
  return [Number(position / LOG_ID_BYTES), Number(position % LOG_ID_BYTES)];
}

/** The position `low` bytes behind the start of log id `high`; `low` may go beyond 32 bits. */
export function lsnFromHalves(high: number, low: number): Lsn {
  return lsn(BigInt(high) * LOG_ID_BYTES + BigInt(low));
}

/** `X/Y`, upper-case hexadecimal, as PostgreSQL prints it. */
export function formatLsn(value: Lsn): string {
  const high = (value / LOG_ID_BYTES).toString(16);
  const low = (value % LOG_ID_BYTES).toString(16);
  return `${high}/${low}`.toUpperCase();
}

/** Parses `X/Y`. Throws `usage` with the text quoted. */
export function parseLsn(text: string): Lsn {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text);
  if (match === null) {
    throw new AppError(
      "usage",
      `Parse LSN "${text}": wanted two hexadecimal numbers as in 0/3000028`,
    );
  }
  return lsn(BigInt(`0x${match[1]}`) * LOG_ID_BYTES + BigInt(`0x${match[2]}`));
}

/** A number as a timeline id. Throws `usage`. */
export function timelineId(value: number): TimelineId {
  if (!Number.isInteger(value) || value < 1 || value > 0xffff_ffff) {
    throw new AppError(
      "usage",
      `Parse timeline "${value}": wanted an integer from 1 to 4294967295`,
    );
  }
  return value as TimelineId;
}

/** Throws `usage` unless `bytes` is a segment size that PostgreSQL allows. */
export function checkSegmentSize(bytes: number): void {
  const powerOfTwo = Number.isInteger(bytes) && bytes > 0 && (bytes & (bytes - 1)) === 0;
  if (!powerOfTwo || bytes < SEGMENT_SIZE_BYTES_MIN || bytes > SEGMENT_SIZE_BYTES_MAX) {
    throw new AppError(
      "usage",
      `Use WAL segment size ${bytes}: wanted a power of two from ${SEGMENT_SIZE_BYTES_MIN} to ${SEGMENT_SIZE_BYTES_MAX} bytes`,
    );
  }
}

/** First byte of the segment that contains `position`. */
export function segmentStart(position: Lsn, segmentSizeBytes: number): Lsn {
  return lsn(position - position % BigInt(segmentSizeBytes));
}

/** Offset of `position` in its segment. */
export function segmentOffset(position: Lsn, segmentSizeBytes: number): number {
  return Number(position % BigInt(segmentSizeBytes));
}

/** First byte of the last segment that holds data BEFORE `end` (`pg_walfile_name` of PostgreSQL uses end - 1 too). */
export function lastSegmentStart(end: Lsn, segmentSizeBytes: number): Lsn {
  return segmentStart(end === LSN_ZERO ? end : lsn(end - 1n), segmentSizeBytes);
}

function hex8(value: bigint | number): string {
  return value.toString(16).toUpperCase().padStart(8, "0");
}

/** Name of the segment that contains `position`: 24 upper-case hexadecimal digits. */
export function segmentName(timeline: TimelineId, position: Lsn, segmentSizeBytes: number): string {
  const logId = position / LOG_ID_BYTES;
  const segment = (position % LOG_ID_BYTES) / BigInt(segmentSizeBytes);
  return hex8(timeline) + hex8(logId) + hex8(segment);
}

/** Name of a timeline's history file, `0000000N.history`. */
export function historyName(timeline: TimelineId): string {
  return `${hex8(timeline)}.history`;
}

/** A WAL file name taken apart. */
export type WalName =
  | {
    readonly kind: "segment";
    readonly name: string;
    readonly timeline: TimelineId;
    readonly partial: boolean;
  }
  | { readonly kind: "history"; readonly name: string; readonly timeline: TimelineId }
  | { readonly kind: "backup_label"; readonly name: string; readonly timeline: TimelineId };

const WAL_NAME =
  /^([0-9A-F]{8})(?:([0-9A-F]{16})(?:\.([0-9A-F]{8})\.backup|(\.partial))?|(\.history))$/;

/**
 * Takes a WAL file name apart; `name` in the result has no `.partial`. Only upper-case digits: mixed case would make
 * distinct files of one segment. Throws `usage`.
 */
export function parseWalName(text: string): WalName {
  const match = WAL_NAME.exec(text);
  if (match === null) {
    throw new AppError(
      "usage",
      `Parse WAL file name "${text}": wanted a name like 00000001000000000000000A`,
      {
        hint:
          "segments have 24 upper-case hexadecimal digits; timeline histories look like 00000002.history",
      },
    );
  }
  const timeline = timelineId(Number.parseInt(match[1] ?? "", 16));
  if (match[5] !== undefined) return { kind: "history", name: text, timeline };
  if (match[3] !== undefined) return { kind: "backup_label", name: text, timeline };
  return { kind: "segment", name: text.slice(0, 24), timeline, partial: match[4] !== undefined };
}

/** First byte of the segment with this 24-digit name. Throws `usage` when the number exceeds the segments of a log id. */
export function segmentNameStart(name: string, segmentSizeBytes: number): Lsn {
  const segment = BigInt(`0x${name.slice(16, 24)}`);
  if (segment >= LOG_ID_BYTES / BigInt(segmentSizeBytes)) {
    throw new AppError(
      "usage",
      `Parse WAL file name "${name}": no such segment with segments of ${segmentSizeBytes} bytes`,
    );
  }
  return lsn(BigInt(`0x${name.slice(8, 16)}`) * LOG_ID_BYTES + segment * BigInt(segmentSizeBytes));
}
