/**
 * Verifies physical WAL while it streams, as PostgreSQL's reader would while recovering from it (`xlogreader.c`, versions
 * 15-18): page headers, the chain of `xl_prev`, lengths across page and segment borders, CRC-32C of every record, records
 * overwritten after a crash, segments ended by a switch. Invariant: {@link WalVerifier.verified} never passes a byte of a
 * record whose checksum has not been found right.
 *
 * Memory does not grow with what is fed: a record is summed as it passes, up to the 1 GiB that it may have. Between two
 * calls nothing is kept but counters and fewer than 48 bytes, so a process may hold many verifiers.
 *
 * What no check can see, because nothing covers it and PostgreSQL does not read it: alignment padding after a record (up
 * to 7 bytes), the last 4 bytes of a page header, the rest of a segment after a switch record. And at the head of the first
 * segment the end of a record whose beginning was not fed: only its length is checked, to 8 bytes. Who wants it checked
 * starts one segment (or as many as the record spans) earlier; nothing else is needed.
 *
 * States: `between` records -> `record` -> `between`; `fill` after a switch until the segment ends; `zeros` where WAL has
 * never been written, until something else comes, which is a violation. A violation is final.
 *
 * @module
 */

import { assert } from "../../base/assert.ts";
import {
  checkSegmentSize,
  formatLsn,
  type Lsn,
  lsn,
  LSN_ZERO,
  lsnAdd,
  lsnFromHalves,
  lsnHalves,
  segmentOffset,
} from "../../domain/lsn.ts";
import { CRC32C_BEGIN, CRC32C_WINDOW, crc32cEnd } from "../crc32c.ts";
import {
  OpenRecord,
  RECORD_CRC_OFFSET,
  RECORD_HEADER_BYTES,
  RECORD_TYPE_MASK,
} from "./open_record.ts";
import { PAGE_BYTES, PageChecker, type PageExpectation, pageHeaderBytes } from "./page.ts";
import type { SegmentVerdict, WalViolation, WalViolationKind } from "./verdict.ts";

/** What is verified, and what it is compared with. */
export interface WalVerifierOptions extends PageExpectation {
  /** First byte that will be fed: the start of a segment. */
  readonly start: Lsn;
}

/** PostgreSQL 16 and later stop at 1020 MiB, 15 at what can be allocated at once. */
const RECORD_BYTES_MAX = 1 << 30;
/** Types of the two records that matter here, both of resource manager XLOG (0). */
const XLOG_SWITCH = 0x0040;
const XLOG_OVERWRITE_CONTRECORD = 0x00d0;
/** Its header, two bytes of block header, the position overwritten, a time. */
const OVERWRITE_RECORD_BYTES = 42;
const OVERWRITTEN_OFFSET = 26;

/** Copied at once: fits the second-level cache with the tables. The front of the window is for headers to be summed. */
const PIECE_BYTES = 32_768;
const PIECE_AT = CRC32C_WINDOW.start + 64;
/** The most that is waited for before looking at it, less one. */
const CARRY_BYTES_MAX = 48;

const { bytes: MEMORY, words: WORDS, update } = CRC32C_WINDOW;
const NO_VERDICTS: readonly SegmentVerdict[] = [];

/** See the module comment. */
export class WalVerifier {
  readonly #expected: WalVerifierOptions;
  readonly #pages: PageChecker;

  /** The current segment, as LSN and as the two halves of it; positions in it are offsets, so that the loop is free of bigint. */
  #segment: Lsn;
  #high = 0;
  #low = 0;
  /** First offset that has not been looked at; the bytes from there on are in `#carry`. */
  #offset = 0;
  readonly #carry = new Uint8Array(CARRY_BYTES_MAX);
  #carryBytes = 0;

  #state: "between" | "record" | "fill" | "zeros" = "between";
  #verifiedHigh = 0;
  #verifiedLow = 0;
  #violation: WalViolation | undefined;
  #zerosFrom: Lsn | undefined;

  /** The last complete record, once there is one. */
  #hasPrevious = false;
  #previousHigh = 0;
  #previousLow = 0;

  /** In state `record`: the record being read. */
  readonly #open = new OpenRecord();

  /** The next record must say that it overwrites an unfinished one: this one, if its beginning is known. */
  #overwrites = false;
  #overwritten: Lsn | undefined;

  #records = 0;
  #firstRecord: Lsn | undefined;
  #uncheckedHeadEnd: Lsn | undefined;

  /** Throws `usage` for a segment size that PostgreSQL does not know. */
  constructor(options: WalVerifierOptions) {
    checkSegmentSize(options.segmentSizeBytes);
    assert(segmentOffset(options.start, options.segmentSizeBytes) === 0, "starts with a segment");
    this.#expected = options;
    this.#pages = new PageChecker(options);
    this.#segment = options.start;
    this.#enterSegment();
    this.#setVerified(0);
  }

  /** End of what was fed. */
  get position(): Lsn {
    return lsnAdd(this.#segment, this.#offset + this.#carryBytes);
  }

  /**
   * End of what is verified: of the last complete record with its padding, or of the fill after a switch. Never beyond
   * {@link position}, never goes back, stays where it is after a violation.
   */
  get verified(): Lsn {
    return lsnFromHalves(this.#verifiedHigh, this.#verifiedLow);
  }

  /** The first thing wrong; final. */
  get violation(): WalViolation | undefined {
    return this.#violation;
  }

  /** Major version of PostgreSQL that wrote this WAL; undefined before the first page unless it was given. */
  get major(): number | undefined {
    return this.#pages.major;
  }

  /**
   * Takes the bytes that follow what was fed before, cut anywhere (borrowed until it returns), and returns the verdicts of
   * the segments that end in them. Never throws for what the bytes are: see {@link violation}.
   */
  feed(bytes: Uint8Array): readonly SegmentVerdict[] {
    let verdicts = NO_VERDICTS;
    for (let from = 0; from < bytes.length;) {
      const segmentLeft = this.#expected.segmentSizeBytes - this.#offset - this.#carryBytes;
      const piece = bytes.subarray(from, from + Math.min(PIECE_BYTES, segmentLeft));
      from += piece.length;
      // Words of WAL come to lie on words of the window.
      const at = PIECE_AT + this.#offset % 8;
      MEMORY.set(this.#carry.subarray(0, this.#carryBytes), at);
      MEMORY.set(piece, at + this.#carryBytes);
      const end = at + this.#carryBytes + piece.length;
      const stopped = this.#parse(at, end);
      assert(end - stopped < CARRY_BYTES_MAX, "little is carried over");
      this.#offset += stopped - at;
      this.#carry.set(MEMORY.subarray(stopped, end));
      this.#carryBytes = end - stopped;
      if (this.#offset === this.#expected.segmentSizeBytes) {
        verdicts = [...verdicts, this.verdict()];
        this.#segment = lsnAdd(this.#segment, this.#offset);
        this.#enterSegment();
      }
    }
    return verdicts;
  }

  /** The verdict so far of the segment that holds {@link position}: of a partial. */
  verdict(): SegmentVerdict {
    const open = this.#open.leftBytes > 0;
    const openRecord = open ? this.#open.start : undefined;
    const last = lsnFromHalves(this.#previousHigh, this.#previousLow);
    return {
      timeline: this.#expected.timeline,
      segmentSizeBytes: this.#expected.segmentSizeBytes,
      start: this.#segment,
      sizeBytes: this.#offset + this.#carryBytes,
      records: this.#records,
      firstRecord: this.#firstRecord,
      lastRecord: this.#records > 0 ? last : undefined,
      openRecord,
      uncheckedHeadEnd: open && openRecord === undefined ? this.position : this.#uncheckedHeadEnd,
      zerosFrom: this.#zerosFrom,
      violation: this.#violation,
    };
  }

  #enterSegment(): void {
    [this.#high, this.#low] = lsnHalves(this.#segment);
    this.#offset = 0;
    this.#records = 0;
    this.#firstRecord = undefined;
    this.#uncheckedHeadEnd = undefined;
    if (this.#state === "fill") this.#state = "between";
  }

  /** Looks at the window from `at` to `end` and returns where it stopped because more bytes are needed. */
  #parse(at: number, end: number): number {
    const base = at - this.#offset; // window index of offset 0
    while (at < end && this.#violation === undefined) {
      const offset = at - base;
      if (this.#state === "fill") {
        this.#setVerified(end - base);
        return end;
      }
      if (this.#state === "zeros") {
        if (isZero(at, end)) return end;
        this.#fail("hole", this.#zerosFrom ?? this.#segment, "data behind zeros", "a record");
        continue;
      }
      if (offset % PAGE_BYTES === 0) {
        const sizeBytes = pageHeaderBytes(offset);
        if (end - at < sizeBytes) return at;
        this.#beginPage(at, offset, sizeBytes);
        at += sizeBytes;
        continue;
      }
      const pageEnd = Math.min(end, at + PAGE_BYTES - offset % PAGE_BYTES);
      if (this.#state === "record") {
        at = this.#continueRecord(at, pageEnd, base);
        continue;
      }
      if (offset % 8 !== 0) { // padding
        at = Math.min(end, at + 8 - offset % 8);
        if (at % 8 === 0) this.#setVerified(at - base);
        continue;
      }
      at = this.#readRecords(at, pageEnd, base);
      if (at === pageEnd || this.#state !== "between") continue;
      const wanted = this.#overwrites ? OVERWRITE_RECORD_BYTES : RECORD_HEADER_BYTES;
      if (end - at < Math.min(wanted, PAGE_BYTES - (at - base) % PAGE_BYTES)) return at;
      this.#beginRecord(at, pageEnd, base);
    }
    return this.#violation === undefined ? at : end;
  }

  /** The hot loop: records that lie whole in this page and in the window. Stops before the first that does not or is special. */
  #readRecords(at: number, end: number, base: number): number {
    if (!this.#hasPrevious || this.#overwrites) return at;
    const baseLow = this.#low - base;
    const high = this.#high;
    let previousHigh = this.#previousHigh;
    let previousLow = this.#previousLow;
    let records = 0;
    const first = at;
    while (end - at >= RECORD_HEADER_BYTES) {
      const word = at >>> 2;
      const length = WORDS[word] ?? 0;
      if (length < RECORD_HEADER_BYTES || length > end - at) break;
      const stop = at + length;
      const aligned = (stop + 7) & ~7;
      if (
        aligned > end || WORDS[word + 2] !== previousLow || WORDS[word + 3] !== previousHigh ||
        ((WORDS[word + 4] ?? 0) & RECORD_TYPE_MASK) === XLOG_SWITCH
      ) break;
      const state = update(CRC32C_BEGIN, at + RECORD_HEADER_BYTES, stop);
      if (crc32cEnd(update(state, at, at + RECORD_CRC_OFFSET)) !== WORDS[word + 5]) break;
      previousHigh = high;
      previousLow = baseLow + at;
      records++;
      at = aligned;
    }
    if (records > 0) {
      if (this.#records === 0) this.#firstRecord = lsnFromHalves(high, baseLow + first);
      this.#records += records;
      this.#previousHigh = previousHigh;
      this.#previousLow = previousLow;
      this.#setVerified(at - base);
    }
    return at;
  }

  /** A page header is whole in the window. */
  #beginPage(at: number, offset: number, sizeBytes: number): void {
    const position = lsnAdd(this.#segment, offset);
    if (isZero(at, at + sizeBytes)) {
      this.#state = "zeros";
      this.#zerosFrom = position;
      return;
    }
    const start = this.#pages.check(WORDS, at >>> 2, { segment: this.#segment, offset });
    if ("kind" in start) {
      this.#fail(start.kind, position, start.seen, start.wanted);
    } else if (position === this.#expected.start) {
      this.#overwrites = start.overwrites;
      if (start.continues) this.#openHead(start.remainingBytes, position);
    } else if (start.overwrites && this.#state === "record") {
      this.#overwrites = true;
      this.#overwritten = this.#open.start;
      this.#state = "between";
      this.#open.abandon();
      if (this.#overwritten === undefined) this.#endHead(offset);
    } else {
      const left = this.#open.leftBytes;
      if (start.remainingBytes === left && !start.overwrites) return;
      const seen = start.overwrites ? "one overwritten" : `${start.remainingBytes} bytes to come`;
      this.#fail("continuation", position, seen, `${left} bytes to come`);
    }
  }

  #openHead(remainingBytes: number, position: Lsn): void {
    if (remainingBytes >= RECORD_BYTES_MAX) {
      const wanted = `less than ${RECORD_BYTES_MAX}`;
      this.#fail("record_length", position, String(remainingBytes), wanted);
    } else {
      this.#state = "record";
      this.#open.beginHead(remainingBytes);
    }
  }

  #endHead(offset: number): void {
    this.#uncheckedHeadEnd = lsnAdd(this.#segment, offset);
    if (offset % 8 === 0) this.#setVerified(offset);
  }

  /** A record begins at `at`, and its header is in the window as far as it is in this page. */
  #beginRecord(at: number, pageEnd: number, base: number): void {
    const offset = at - base;
    const position = lsnAdd(this.#segment, offset);
    const length = WORDS[at >>> 2] ?? 0;
    if (length === 0 && isZero(at, Math.min(at + RECORD_HEADER_BYTES, pageEnd))) {
      this.#state = "zeros";
      this.#zerosFrom = position;
      return;
    }
    if (length < RECORD_HEADER_BYTES || length > RECORD_BYTES_MAX) {
      const wanted = `${RECORD_HEADER_BYTES} to ${RECORD_BYTES_MAX}`;
      this.#fail("record_length", position, String(length), wanted);
      return;
    }
    if (this.#overwrites) this.#checkOverwrite(at, position);
    this.#state = "record";
    this.#open.begin(position, length);
  }

  #checkOverwrite(at: number, position: Lsn): void {
    const type = (WORDS[(at >>> 2) + 4] ?? 0) & RECORD_TYPE_MASK;
    const named = lsn(new DataView(MEMORY.buffer, at).getBigUint64(OVERWRITTEN_OFFSET, true));
    const wanted = this.#overwritten ?? named;
    if (type !== XLOG_OVERWRITE_CONTRECORD || WORDS[at >>> 2] !== OVERWRITE_RECORD_BYTES) {
      this.#fail("overwrite", position, "another record", "one that overwrites");
    } else if (named !== wanted) {
      this.#fail("overwrite", position, formatLsn(named), formatLsn(wanted));
    }
  }

  /** Takes what the window has of the open record, up to the end of the page. */
  #continueRecord(at: number, pageEnd: number, base: number): number {
    const hadHeader = this.#open.hasHeader;
    const stop = this.#open.take(at, pageEnd);
    if (!hadHeader && this.#open.hasHeader) this.#checkPrevious();
    if (this.#open.leftBytes === 0 && this.#violation === undefined) this.#endRecord(stop - base);
    return stop;
  }

  #checkPrevious(): void {
    const { previous, start = LSN_ZERO } = this.#open;
    const wanted = lsnFromHalves(this.#previousHigh, this.#previousLow);
    if (this.#hasPrevious ? previous === wanted : previous < start) return;
    const text = this.#hasPrevious ? formatLsn(wanted) : `before ${formatLsn(start)}`;
    this.#fail("prev_link", start, formatLsn(previous), text);
  }

  /** The open record ends at `offset`. */
  #endRecord(offset: number): void {
    this.#state = "between";
    const { start } = this.#open;
    if (start === undefined) {
      this.#endHead(offset);
      return;
    }
    const { seen, wanted } = this.#open.checksum();
    if (seen !== wanted) return this.#fail("crc", start, seen.toString(16), wanted.toString(16));
    const { type } = this.#open;
    if (!this.#hasPrevious && !this.#overwrites && type === XLOG_OVERWRITE_CONTRECORD) {
      // The record that it overwrites was not seen, so only this tells that the page's flag is missing.
      return this.#fail("overwrite", start, "one that overwrites", "another record");
    }
    this.#overwrites = false;
    if (this.#records === 0) this.#firstRecord = start;
    this.#records++;
    this.#hasPrevious = true;
    [this.#previousHigh, this.#previousLow] = lsnHalves(start);
    if (offset % 8 === 0) this.#setVerified(offset);
    if (type === XLOG_SWITCH) this.#state = "fill";
  }

  #setVerified(offset: number): void {
    this.#verifiedHigh = this.#high;
    this.#verifiedLow = this.#low + offset;
  }

  #fail(kind: WalViolationKind, position: Lsn, seen: string, wanted: string): void {
    this.#violation = { kind, position, seen, wanted };
  }
}

function isZero(at: number, end: number): boolean {
  for (; at < end; at++) if (MEMORY[at] !== 0) return false;
  return true;
}
