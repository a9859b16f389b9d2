/**
 * Writes WAL by hand: pages and records as PostgreSQL lays them out, so that a test knows where each stands and can make
 * what a real server rarely does (torn records, odd lengths, switches wherever wanted).
 *
 * @module
 */

import { concat, viewOf } from "../../src/base/bytes.ts";
import { crc32c } from "../../src/codec/crc32c.ts";
import { type Lsn, lsn, LSN_ZERO, lsnAdd, type TimelineId } from "../../src/domain/lsn.ts";

const PAGE_BYTES = 8192;
const HEADER_BYTES = 24;
const CONTINUES = 1;
const LONG_HEADER = 2;
const OVERWRITES = 8;
const SWITCH = 0x40;
const OVERWRITE_CONTRECORD = 0xd0;

/** What the pages say. */
export interface WalWriterOptions {
  readonly timeline: TimelineId;
  readonly systemId: string;
  readonly segmentSizeBytes: number;
  /** Start of a segment. */
  readonly start: Lsn;
  readonly sizeBytesMax: number;
  /** Magic of PostgreSQL 15 unless told. */
  readonly magic?: number;
}

/** See the module comment. */
export class WalWriter {
  readonly #options: WalWriterOptions;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  #size = 0;
  #previous: Lsn = LSN_ZERO;
  /** Of the pages from here on; a test may change it, as a promotion does. */
  timeline: TimelineId;
  /** Start of every record, in order. */
  readonly records: Lsn[] = [];

  constructor(options: WalWriterOptions) {
    this.#options = options;
    this.#bytes = new Uint8Array(options.sizeBytesMax);
    this.timeline = options.timeline;
  }

  /** End of what is written. */
  get position(): Lsn {
    return lsnAdd(this.#options.start, this.#size);
  }

  /** A copy of all that is written. */
  bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#size);
  }

  /** Offset of a position in {@link bytes}. */
  offsetOf(position: Lsn): number {
    return Number(position - this.#options.start);
  }

  /** A record of this length, header included, with its padding. */
  record(sizeBytes: number, type: { readonly info?: number; readonly manager?: number } = {}): Lsn {
    const body = new Uint8Array(sizeBytes - HEADER_BYTES);
    for (let i = 0; i < body.length; i++) body[i] = (i * 7 + sizeBytes) & 0xff;
    return this.#append(body, type.info ?? 0, type.manager ?? 10);
  }

  /** A switch record, then zeros up to the end of the segment. */
  switchSegment(): void {
    this.#append(new Uint8Array(0), SWITCH, 0);
    const { segmentSizeBytes } = this.#options;
    this.#size = Math.ceil(this.#size / segmentSizeBytes) * segmentSizeBytes;
  }

  /** Small records, then one that ends `leftBytes` (a multiple of 8, less than half a page) before the end of the segment. */
  fillSegment(leftBytes: number): void {
    const { segmentSizeBytes } = this.#options;
    const left = () => segmentSizeBytes - this.#size % segmentSizeBytes;
    do this.record(200); while (left() > PAGE_BYTES);
    if (left() === PAGE_BYTES) this.record(200);
    this.record(left() - leftBytes);
  }

  /**
   * A record that is never finished: only what fits the current page and `pages` more is there. Then a page that says so
   * and a record that names it, unless `next` is `silent`.
   */
  tear(
    sizeBytes: number,
    { pages = 0, next = "named" }: { readonly pages?: number; readonly next?: "named" | "silent" } =
      {},
  ): Lsn {
    const count = this.records.length;
    const previous = this.#previous;
    const torn = this.record(sizeBytes);
    this.records.length = count;
    this.#previous = previous;
    const offset = this.offsetOf(torn);
    const pageEnd = (Math.ceil(offset / PAGE_BYTES) + pages) * PAGE_BYTES;
    this.#bytes.fill(0, pageEnd, this.#size);
    this.#size = pageEnd;
    this.#page(OVERWRITES, 0);
    if (next === "silent") return torn;
    const body = new Uint8Array(18);
    body[0] = 255;
    body[1] = 16;
    viewOf(body).setBigUint64(2, torn, true);
    this.#append(body, OVERWRITE_CONTRECORD, 0);
    return torn;
  }

  #append(body: Uint8Array, info: number, manager: number): Lsn {
    if (this.#size % PAGE_BYTES === 0) this.#page(0, 0);
    const start = this.position;
    const header = new Uint8Array(HEADER_BYTES);
    const view = viewOf(header);
    view.setUint32(0, HEADER_BYTES + body.length, true);
    view.setUint32(4, 700 + this.records.length, true);
    view.setBigUint64(8, this.#previous, true);
    header[16] = info;
    header[17] = manager;
    view.setUint32(20, crc32c(header.subarray(0, 20), crc32c(body)), true);
    this.#write(concat([header, body]));
    this.#previous = start;
    this.records.push(start);
    return start;
  }

  #write(data: Uint8Array): void {
    for (let at = 0; at < data.length;) {
      if (this.#size % PAGE_BYTES === 0) this.#page(CONTINUES, data.length - at);
      const part = data.subarray(at, at + PAGE_BYTES - this.#size % PAGE_BYTES);
      this.#bytes.set(part, this.#size);
      this.#size += part.length;
      at += part.length;
    }
    this.#size = Math.ceil(this.#size / 8) * 8;
  }

  #page(flags: number, remainingBytes: number): void {
    const { segmentSizeBytes, magic, systemId } = this.#options;
    const long = this.#size % segmentSizeBytes === 0;
    const header = new Uint8Array(long ? 40 : HEADER_BYTES);
    const view = viewOf(header);
    view.setUint16(0, magic ?? 0xd110, true);
    view.setUint16(2, flags | (long ? LONG_HEADER : 0), true);
    view.setUint32(4, this.timeline, true);
    view.setBigUint64(8, lsn(this.position), true);
    view.setUint32(16, remainingBytes, true);
    if (long) {
      view.setBigUint64(24, BigInt(systemId), true);
      view.setUint32(32, segmentSizeBytes, true);
      view.setUint32(36, PAGE_BYTES, true);
    }
    this.#bytes.set(header, this.#size);
    this.#size += header.length;
  }
}
