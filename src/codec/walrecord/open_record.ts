/**
 * A WAL record that is read piece by piece: it crosses a page, or the bytes fed so far end in it. Keeps its header and
 * the running checksum of its body, never the body. Layout of the header: `XLogRecord` in
 * `src/include/access/xlogrecord.h`, PostgreSQL 15-18; the checksum covers the body first, then the header up to itself.
 *
 * @module
 */

import { viewOf } from "../../base/bytes.ts";
import { type Lsn, lsn } from "../../domain/lsn.ts";
import { CRC32C_BEGIN, CRC32C_WINDOW, crc32cEnd } from "../crc32c.ts";

/** Size of a record's header, which is also the smallest record. */
export const RECORD_HEADER_BYTES = 24;
/** Offset of the checksum in the header, and size of what it covers of it. */
export const RECORD_CRC_OFFSET = 20;
const PREVIOUS_OFFSET = 8;
const TYPE_OFFSET = 16;
/** Of the 32-bit word that begins with info and resource manager: the bits that tell the type. */
export const RECORD_TYPE_MASK = 0xfff0;
/** Where in the window a header is summed; pieces of WAL lie behind it. */
const HEADER_AT = CRC32C_WINDOW.start;

const { bytes: MEMORY, update } = CRC32C_WINDOW;

/** See the module comment. */
export class OpenRecord {
  #start: Lsn | undefined;
  #leftBytes = 0;
  #bodyState = CRC32C_BEGIN;
  readonly #header = new Uint8Array(RECORD_HEADER_BYTES);
  readonly #view = viewOf(this.#header);
  #headerBytes = 0;

  /** Begins with a record at `start`. */
  begin(start: Lsn, sizeBytes: number): void {
    this.#start = start;
    this.#leftBytes = sizeBytes;
    this.#bodyState = CRC32C_BEGIN;
    this.#headerBytes = 0;
  }

  /** Begins in the middle of a record whose beginning is not known. */
  beginHead(leftBytes: number): void {
    this.#start = undefined;
    this.#leftBytes = leftBytes;
  }

  /** Gives the record up. */
  abandon(): void {
    this.#leftBytes = 0;
  }

  /** Where the record begins, if that is known. */
  get start(): Lsn | undefined {
    return this.#start;
  }

  /** Bytes to come; 0 when no record is open. */
  get leftBytes(): number {
    return this.#leftBytes;
  }

  /** The header has been taken; false for ever when the beginning is not known. */
  get hasHeader(): boolean {
    return this.#start !== undefined && this.#headerBytes === RECORD_HEADER_BYTES;
  }

  /** Position of the record before, once {@link hasHeader}. */
  get previous(): Lsn {
    return lsn(this.#view.getBigUint64(PREVIOUS_OFFSET, true));
  }

  /** Resource manager and kind, as {@link RECORD_TYPE_MASK} cuts them out, once {@link hasHeader}. */
  get type(): number {
    return this.#view.getUint32(TYPE_OFFSET, true) & RECORD_TYPE_MASK;
  }

  /** Takes what the window has of the record, the header apart from the body; returns where it stopped. */
  take(at: number, end: number): number {
    const inHeader = this.#start !== undefined && !this.hasHeader;
    const wanted = inHeader ? RECORD_HEADER_BYTES - this.#headerBytes : this.#leftBytes;
    const stop = Math.min(end, at + wanted);
    if (inHeader) {
      this.#header.set(MEMORY.subarray(at, stop), this.#headerBytes);
      this.#headerBytes += stop - at;
    } else if (this.#start !== undefined) {
      this.#bodyState = update(this.#bodyState, at, stop);
    }
    this.#leftBytes -= stop - at;
    return stop;
  }

  /** The checksum of the complete record and the one it should have. */
  checksum(): { readonly seen: number; readonly wanted: number } {
    MEMORY.set(this.#header, HEADER_AT);
    const state = update(this.#bodyState, HEADER_AT, HEADER_AT + RECORD_CRC_OFFSET);
    return { seen: crc32cEnd(state), wanted: this.#view.getUint32(RECORD_CRC_OFFSET, true) };
  }
}
