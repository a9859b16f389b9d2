/**
 * Headers of WAL pages (`XLogPageHeaderData` and `XLogLongPageHeaderData` in `src/include/access/xlog_internal.h`,
 * PostgreSQL 15-18): the layout and every check that needs no record. Stricter than PostgreSQL's reader in what it can
 * be: all pages have the same version, long headers stand at the start of segments and nowhere else, and with a known
 * history the timeline of each page is exact. Not checked: the last four bytes of the header, which are padding.
 *
 * @module
 */

import { type Lsn, lsnAdd, type TimelineId } from "../../domain/lsn.ts";
import type { TimelineSwitch } from "../../domain/timeline_history.ts";
import type { WalViolationKind } from "./verdict.ts";

/** Size of a WAL page; PostgreSQL built with another one is refused by the check of the long header. */
export const PAGE_BYTES = 8192;
const SHORT_HEADER_BYTES = 24;
const LONG_HEADER_BYTES = 40;

/** Magic numbers and the major version that writes each. */
const MAJOR_OF_MAGIC: ReadonlyMap<number, number> = new Map([
  [0xd110, 15],
  [0xd113, 16],
  [0xd116, 17],
  [0xd118, 18],
]);

/** The page begins with the rest of a record. */
const CONTINUES = 0x0001;
const LONG_HEADER = 0x0002;
/** A remark for compressors, set on pages that were begun while no backup ran: nobody can say what it should be. */
const BACKUP_BLOCKS_REMOVABLE = 0x0004;
/** The record left open is given up; the page begins with one that says so. */
const OVERWRITES = 0x0008;

/** Something wrong, without its place. */
export interface WalFault {
  readonly kind: WalViolationKind;
  readonly seen: string;
  readonly wanted: string;
}

/** What a page says about the record left open by the page before. */
export interface PageStart {
  readonly continues: boolean;
  readonly overwrites: boolean;
  /** Bytes of that record still to come, this page included; 0 unless it continues. */
  readonly remainingBytes: number;
}

/** What the pages are compared with. */
export interface PageExpectation {
  readonly timeline: TimelineId;
  /** Decimal. */
  readonly systemId: string;
  readonly segmentSizeBytes: number;
  /**
   * Major version of the PostgreSQL that writes the pages. When it is not known, the first page is believed if it names a
   * supported one: a single flipped bit can turn 15 into 18 there, which then shows at the second page only.
   */
  readonly major?: number;
  /**
   * Ancestors of the timeline; then the timeline of every page is known. Undefined when it is not known: then timelines
   * must not go back nor beyond `timeline`.
   */
  readonly history?: readonly TimelineSwitch[];
}

/** Size of the header of the page at this offset in its segment. */
export function pageHeaderBytes(segmentOffset: number): number {
  return segmentOffset === 0 ? LONG_HEADER_BYTES : SHORT_HEADER_BYTES;
}

/** Checks pages in order. */
export class PageChecker {
  readonly #expected: PageExpectation;
  #magic: number | undefined;
  /** Timeline of the last page; then the position from which on the history must be asked again. */
  #timeline = 1;
  #timelineUntil: Lsn | undefined;

  constructor(expected: PageExpectation) {
    this.#expected = expected;
    for (const [magic, major] of MAJOR_OF_MAGIC) {
      if (major === expected.major) this.#magic = magic;
    }
  }

  /** Major version of PostgreSQL that wrote the pages; undefined before the first one unless it was given. */
  get major(): number | undefined {
    return this.#magic === undefined ? undefined : MAJOR_OF_MAGIC.get(this.#magic);
  }

  /**
   * Checks the header at word index `at` against the page's place and returns what it says about the open record, or
   * the fault.
   */
  check(
    words: Uint32Array,
    at: number,
    page: { readonly segment: Lsn; readonly offset: number },
  ): PageStart | WalFault {
    const word = (index: number): number => words[at + index] ?? 0;
    const magic = word(0) & 0xffff;
    if (this.#magic === undefined ? !MAJOR_OF_MAGIC.has(magic) : magic !== this.#magic) {
      const known = this.#magic === undefined ? [...MAJOR_OF_MAGIC.keys()] : [this.#magic];
      return { kind: "page_magic", seen: hex(magic), wanted: known.map(hex).join(" or ") };
    }
    this.#magic = magic;

    const flags = (word(0) >>> 16) & ~BACKUP_BLOCKS_REMOVABLE;
    const start = (flags & CONTINUES) | (flags & OVERWRITES);
    const longFlag = page.offset === 0 ? LONG_HEADER : 0;
    if (flags !== (start | longFlag) || start === (CONTINUES | OVERWRITES)) {
      return {
        kind: "page_flags",
        seen: hex(flags),
        wanted: [0, CONTINUES, OVERWRITES].map((flag) => hex(flag | longFlag)).join(" or "),
      };
    }
    const address = (BigInt(word(3)) << 32n) | BigInt(word(2));
    const wanted = lsnAdd(page.segment, page.offset);
    if (address !== wanted) {
      return { kind: "page_address", seen: hex(address), wanted: hex(wanted) };
    }
    return this.#checkTimeline(word(1), wanted) ??
      (page.offset === 0 ? this.#checkLong(word) : undefined) ??
      pageStart(flags, word(4));
  }

  #checkTimeline(timeline: number, position: Lsn): WalFault | undefined {
    const { history, timeline: newest } = this.#expected;
    if (history === undefined) {
      if (timeline < this.#timeline || timeline > newest) {
        const wanted = `${this.#timeline} to ${newest}`;
        return { kind: "timeline", seen: String(timeline), wanted };
      }
      this.#timeline = timeline;
      return undefined;
    }
    if (this.#timelineUntil === undefined || position >= this.#timelineUntil) {
      const owner = history.find((ancestor) => position < ancestor.switchPoint);
      this.#timeline = owner?.timeline ?? newest;
      this.#timelineUntil = owner?.switchPoint;
    }
    if (timeline === this.#timeline) return undefined;
    return { kind: "timeline", seen: String(timeline), wanted: String(this.#timeline) };
  }

  #checkLong(word: (index: number) => number): WalFault | undefined {
    const { segmentSizeBytes, systemId: wanted } = this.#expected;
    const systemId = String((BigInt(word(7)) << 32n) | BigInt(word(6)));
    if (systemId !== wanted) return { kind: "system_id", seen: systemId, wanted };
    if (word(8) !== segmentSizeBytes) {
      return { kind: "segment_size", seen: String(word(8)), wanted: String(segmentSizeBytes) };
    }
    if (word(9) === PAGE_BYTES) return undefined;
    return { kind: "block_size", seen: String(word(9)), wanted: String(PAGE_BYTES) };
  }
}

function pageStart(flags: number, remainingBytes: number): PageStart | WalFault {
  const continues = (flags & CONTINUES) !== 0;
  if (continues === (remainingBytes > 0)) {
    return { continues, overwrites: (flags & OVERWRITES) !== 0, remainingBytes };
  }
  const seen = `${remainingBytes} bytes and flags ${hex(flags)}`;
  return { kind: "continuation", seen, wanted: "bytes to come if and only if flagged" };
}

function hex(value: number | bigint): string {
  return `0x${value.toString(16).toUpperCase()}`;
}
