/**
 * What every byte of clean WAL is for. A second, simple reading of the format beside `codec/walrecord`: it has all bytes at
 * hand, believes them, and checks nothing.
 *
 * @module
 */

import { viewOf } from "../../src/base/bytes.ts";

const PAGE_BYTES = 8192;
const SWITCH = 0x0040;

/** Fields of a page header by their last byte, then fields of a record header. */
const PAGE_FIELDS = [
  [2, "page magic"],
  [4, "page flags"],
  [8, "page timeline"],
  [16, "page address"],
  [20, "page remaining"],
  [24, "page padding"],
  [32, "page system id"],
  [36, "page segment size"],
  [40, "page block size"],
] as const;
const RECORD_FIELDS = [
  [4, "record length"],
  [8, "record transaction"],
  [16, "record previous"],
  [17, "record info"],
  [18, "record manager"],
  [20, "record header padding"],
  [24, "record crc"],
] as const;

/** What a byte is for. */
export type ByteClass =
  | (typeof PAGE_FIELDS)[number][1]
  | (typeof RECORD_FIELDS)[number][1]
  | "record body"
  /** The same behind a page header. */
  | "continued body"
  | "padding"
  | "fill after a switch"
  /** Of a record that began before the bytes. */
  | "head"
  /** Of a record that was torn by a crash. */
  | "torn record";

/** A record with what follows it up to the next one. */
interface MappedRecord {
  /** Offset in the bytes, and length without page headers between. */
  readonly offset: number;
  readonly sizeBytes: number;
  readonly kind: "record" | "switch" | "torn" | "head";
}

/** See the module comment. */
export class WalMap {
  readonly #segmentSizeBytes: number;
  readonly #entries: MappedRecord[] = [];

  /** `bytes` begin with a segment. */
  constructor(bytes: Uint8Array, segmentSizeBytes: number) {
    this.#segmentSizeBytes = segmentSizeBytes;
    const view = viewOf(bytes);
    const flags = (page: number) => view.getUint16(page + 2, true);
    let at = 0;
    if ((flags(0) & 1) !== 0) {
      this.#entries.push({ offset: 0, sizeBytes: view.getUint32(16, true), kind: "head" });
      at = align(this.#advance(40, view.getUint32(16, true)));
    }
    while (at < bytes.length) {
      if (at % PAGE_BYTES === 0) at += this.#headerBytes(at);
      if (at + 4 > bytes.length) break;
      const sizeBytes = view.getUint32(at, true);
      const end = this.#advance(at, sizeBytes);
      const torn = this.#pagesBetween(at, end).find((page) =>
        page < bytes.length && (flags(page) & 8) !== 0
      );
      if (torn !== undefined) {
        this.#entries.push({ offset: at, sizeBytes, kind: "torn" });
        at = torn;
        continue;
      }
      let info = this.#advance(at, 16);
      if (info % PAGE_BYTES === 0) info += this.#headerBytes(info);
      const isSwitch = info + 2 <= bytes.length && (view.getUint16(info, true) & 0xfff0) === SWITCH;
      this.#entries.push({ offset: at, sizeBytes, kind: isSwitch ? "switch" : "record" });
      at = align(end);
      if (isSwitch) at = this.#segmentEnd(at);
    }
  }

  /** Offsets of all records that were finished. */
  get records(): readonly number[] {
    const finished = this.#entries.filter(({ kind }) => kind === "record" || kind === "switch");
    return finished.map(({ offset }) => offset);
  }

  /** What the byte at this offset is for, and the offset of the record or page it belongs to. */
  at(offset: number): { readonly kind: ByteClass; readonly owner: number } {
    const entry = this.#entryAt(offset);
    const page = offset - offset % PAGE_BYTES;
    const switchEnd = entry?.kind === "switch" ? this.#advance(entry.offset, 24) : Infinity;
    const inFill = offset >= switchEnd && offset < this.#segmentEnd(switchEnd);
    if (offset - page < this.#headerBytes(page) && !inFill) {
      return { kind: field(PAGE_FIELDS, offset - page) ?? "page padding", owner: page };
    }
    if (entry === undefined) return { kind: "head", owner: 0 };
    const { kind } = entry;
    const headers = this.#pagesBetween(entry.offset, offset + 1);
    const inRecord = headers.reduce(
      (rest, start) => rest - this.#headerBytes(start),
      offset - entry.offset,
    );
    const owner = entry.offset;
    if (kind === "head") return { kind: "head", owner };
    if (kind === "torn") return { kind: "torn record", owner };
    if (inFill) return { kind: "fill after a switch", owner };
    if (inRecord >= entry.sizeBytes) return { kind: "padding", owner };
    const body = headers.length > 0 ? "continued body" : "record body";
    return { kind: field(RECORD_FIELDS, inRecord) ?? body, owner };
  }

  #entryAt(offset: number): MappedRecord | undefined {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#entries[middle]?.offset ?? 0) <= offset) low = middle + 1;
      else high = middle;
    }
    return this.#entries[low - 1];
  }

  #headerBytes(page: number): number {
    return page % this.#segmentSizeBytes === 0 ? 40 : 24;
  }

  /** The end of the segment, for something that ends at `end` in it. */
  #segmentEnd(end: number): number {
    return Math.ceil(end / this.#segmentSizeBytes) * this.#segmentSizeBytes;
  }

  /** Offset behind `sizeBytes` bytes of a record that go on at `offset`. */
  #advance(offset: number, sizeBytes: number): number {
    let at = offset;
    for (let left = sizeBytes; left > 0;) {
      if (at % PAGE_BYTES === 0) at += this.#headerBytes(at);
      const part = Math.min(left, PAGE_BYTES - at % PAGE_BYTES);
      at += part;
      left -= part;
    }
    return at;
  }

  /** Offsets of the pages that begin behind `from` and before `to`. */
  #pagesBetween(from: number, to: number): number[] {
    const pages: number[] = [];
    const first = from - from % PAGE_BYTES + PAGE_BYTES;
    for (let page = first; page < to; page += PAGE_BYTES) pages.push(page);
    return pages;
  }
}

function align(offset: number): number {
  return Math.ceil(offset / 8) * 8;
}

function field<T extends string>(
  fields: ReadonlyArray<readonly [number, T]>,
  offset: number,
): T | undefined {
  return fields.find(([end]) => offset < end)?.[1];
}
