/**
 * What verifying a WAL segment found, and how it is kept beside the archive as JSON. LSNs are written as PostgreSQL prints
 * them. A document that is not what {@link encodeVerdict} writes is `corruption`.
 *
 * @module
 */

import { type Bytes, utf8 } from "../../base/bytes.ts";
import { isKind } from "../../base/failure.ts";
import { JsonReader } from "../../base/json_reader.ts";
import { formatLsn, type Lsn, parseLsn, type TimelineId, timelineId } from "../../domain/lsn.ts";

/** What was wrong. The words go into documents and metrics: never rename one. */
export const WAL_VIOLATION_KINDS = [
  /** Not a page of PostgreSQL 15 to 18, or not of the version that the stream began with. */
  "page_magic",
  /** Flags that no page, or not this one, can have. */
  "page_flags",
  "page_address",
  /** The page belongs to another timeline than the history says. */
  "timeline",
  "system_id",
  "segment_size",
  "block_size",
  /** A page does not continue the record that the previous one left open, or continues one that is not open. */
  "continuation",
  /** A record overwrites an unfinished one and does not say so, or says so of another. */
  "overwrite",
  "record_length",
  "prev_link",
  "crc",
  /** Zeros where a record or a page was due, and then something else: a hole. */
  "hole",
] as const;
/** One of {@link WAL_VIOLATION_KINDS}. */
export type WalViolationKind = (typeof WAL_VIOLATION_KINDS)[number];

/** The first thing that was wrong; nothing behind it was looked at. */
export interface WalViolation {
  readonly kind: WalViolationKind;
  /** Start of the page or record concerned. Every byte before it that a check covers is good. */
  readonly position: Lsn;
  readonly seen: string;
  readonly wanted: string;
}

/** What is known of one segment after its bytes went through a verifier. Positions inside are LSNs. */
export interface SegmentVerdict {
  readonly timeline: TimelineId;
  readonly segmentSizeBytes: number;
  /** First byte of the segment. */
  readonly start: Lsn;
  /** Bytes seen of it; less than its size as long as it is a partial. */
  readonly sizeBytes: number;
  /** Records that END here, all verified; the first may begin in an earlier segment. */
  readonly records: number;
  /** Start of the first and of the last of these; undefined when there is none. */
  readonly firstRecord: Lsn | undefined;
  readonly lastRecord: Lsn | undefined;
  /** Start of the record that was not complete at the end of the bytes: whoever verifies the next segment decides. */
  readonly openRecord: Lsn | undefined;
  /**
   * End of the bytes at the head that belong to a record whose beginning was not seen, so that no checksum covers them;
   * undefined when there are none. Only in the first segment (or segments) that a verifier sees.
   */
  readonly uncheckedHeadEnd: Lsn | undefined;
  /** Where nothing but zeros follows, as in a segment that was never filled; undefined when it is full. */
  readonly zerosFrom: Lsn | undefined;
  readonly violation: WalViolation | undefined;
}

/** The verdict as a JSON document. */
export function encodeVerdict(verdict: SegmentVerdict): Bytes {
  const { violation } = verdict;
  return utf8(JSON.stringify({
    timeline: verdict.timeline,
    segment_size_bytes: verdict.segmentSizeBytes,
    start: formatLsn(verdict.start),
    size_bytes: verdict.sizeBytes,
    records: verdict.records,
    first_record: formatOptional(verdict.firstRecord),
    last_record: formatOptional(verdict.lastRecord),
    open_record: formatOptional(verdict.openRecord),
    unchecked_head_end: formatOptional(verdict.uncheckedHeadEnd),
    zeros_from: formatOptional(verdict.zerosFrom),
    violation: violation && { ...violation, position: formatLsn(violation.position) },
  }));
}

/** Reads what {@link encodeVerdict} wrote. Throws `corruption`. */
export function decodeVerdict(document: Uint8Array): SegmentVerdict {
  const json = JsonReader.parse(document, { what: "Read WAL verdict", kind: "corruption" });
  return {
    timeline: readAs(json, "timeline", "a timeline", (key) => timelineId(json.integer(key))),
    segmentSizeBytes: readCount(json, "segment_size_bytes"),
    start: readLsn(json, "start"),
    sizeBytes: readCount(json, "size_bytes"),
    records: readCount(json, "records"),
    firstRecord: readOptionalLsn(json, "first_record"),
    lastRecord: readOptionalLsn(json, "last_record"),
    openRecord: readOptionalLsn(json, "open_record"),
    uncheckedHeadEnd: readOptionalLsn(json, "unchecked_head_end"),
    zerosFrom: readOptionalLsn(json, "zeros_from"),
    violation: json.has("violation") ? readViolation(json.object("violation")) : undefined,
  };
}

function formatOptional(position: Lsn | undefined): string | undefined {
  return position === undefined ? undefined : formatLsn(position);
}

function readViolation(json: JsonReader): WalViolation {
  const name = json.string("kind");
  return {
    kind: WAL_VIOLATION_KINDS.find((kind) => kind === name) ??
      json.fail("kind", "a known kind of violation"),
    position: readLsn(json, "position"),
    seen: json.string("seen"),
    wanted: json.string("wanted"),
  };
}

function readOptionalLsn(json: JsonReader, key: string): Lsn | undefined {
  return json.has(key) ? readLsn(json, key) : undefined;
}

function readLsn(json: JsonReader, key: string): Lsn {
  return readAs(json, key, "an LSN", () => parseLsn(json.string(key)));
}

function readCount(json: JsonReader, key: string): number {
  const value = json.integer(key);
  return value >= 0 ? value : json.fail(key, "a count");
}

/** Values of the domain refuse text with `usage`, which is right for a person's input and not for a stored document. */
function readAs<T>(json: JsonReader, key: string, wanted: string, read: (key: string) => T): T {
  try {
    return read(key);
  } catch (error) {
    if (isKind(error, "usage")) json.fail(key, wanted);
    throw error;
  }
}
