/**
 * Index images, version 2 (reference/kopia.md 3.7): a sorted table of fixed-size entries, a pack table, a format table
 * and the names of the packs. An image is looked up as it lies, by binary search on its bytes: about 33 bytes per
 * content instead of an object each. All integers are big-endian.
 *
 * Header: version (1), key size (1), entry size (2), entries (4), packs (4), formats (1), base time (4).
 *
 * @module
 */

import { assert } from "../../base/assert.ts";
import { type Bytes, fromUtf8, utf8, viewOf } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { contentIdKey, contentIdOfKey, HASH_BYTES_MAX } from "./content_id.ts";

/** Where a content lies and how it is stored. */
export interface IndexEntry {
  readonly id: string;
  readonly timestampSeconds: number;
  readonly packBlobId: string;
  readonly packOffset: number;
  readonly packedLength: number;
  readonly originalLength: number;
  /** Tombstone; place and lengths are those of the last live copy. */
  readonly deleted: boolean;
  /** Compression header id, 0 for none. */
  readonly compression: number;
  readonly formatVersion: number;
  /** Always 0. */
  readonly encryptionKeyId: number;
}

/** Largest content, exclusive. */
export const CONTENT_BYTES_LIMIT = 2 ** 28;
/** Largest offset in a pack, exclusive. */
export const PACK_OFFSET_LIMIT = 2 ** 30;

const VERSION = 2;
const HEADER_BYTES = 17;
const ENTRY_BYTES_MIN = 16;
const ENTRY_BYTES_MAX = 19;
const PACK_ROW_BYTES = 5;
const FORMAT_ROW_BYTES = 6;
const PACKS_LIMIT = 2 ** 24;
const FORMATS_MAX = 255;
const DELETED = 0x8000_0000;

/** The rule for an id that occurs in several images: is `a` the one that counts? */
export function supersedes(a: IndexEntry, b: IndexEntry): boolean {
  if (a.timestampSeconds !== b.timestampSeconds) return a.timestampSeconds > b.timestampSeconds;
  if (a.deleted !== b.deleted) return b.deleted;
  return a.packBlobId > b.packBlobId;
}

/** The image of `entries`, which have distinct ids of one hash size, in any order. */
export function encodeIndex(entries: readonly IndexEntry[]): Bytes {
  // Ids sort as their keys do: hex digits come before the prefix letters.
  const sorted = [...entries].sort((a, b) => (a.id < b.id ? -1 : 1));
  const packs = new Numbering<string>();
  const formats = new Numbering<number>();
  const packNumbers = new Uint32Array(sorted.length);
  const formatNumbers = new Uint32Array(sorted.length);
  let hasLong = false;
  for (const [i, entry] of sorted.entries()) {
    checkLimits(entry);
    packNumbers[i] = packs.numberOf(entry.packBlobId);
    formatNumbers[i] = formats.numberOf(formatKey(entry));
    hasLong ||= entry.originalLength >= 2 ** 24 || entry.packedLength >= 2 ** 24;
  }
  assert(packs.size < PACKS_LIMIT && formats.size <= FORMATS_MAX, "the image's tables fit");
  const entryBytes = hasLong ? 19 : packs.size > 2 ** 16 ? 18 : formats.size > 1 ? 17 : 16;
  const firstKey = sorted[0] === undefined ? new Uint8Array(1) : contentIdKey(sorted[0].id);
  const rowBytes = firstKey.length + entryBytes;

  const packTable = HEADER_BYTES + rowBytes * sorted.length;
  const formatTable = packTable + PACK_ROW_BYTES * packs.size;
  const names = [...packs.values()].map(utf8);
  let nameOffset = formatTable + FORMAT_ROW_BYTES * formats.size;
  const image = new Uint8Array(names.reduce((sum, name) => sum + name.length, nameOffset));
  const view = viewOf(image);

  view.setUint8(0, VERSION);
  view.setUint8(1, firstKey.length);
  view.setUint16(2, entryBytes);
  view.setUint32(4, sorted.length);
  view.setUint32(8, packs.size);
  view.setUint8(12, formats.size);

  let at = HEADER_BYTES;
  let previousId = "";
  for (const [i, entry] of sorted.entries()) {
    assert(entry.id !== previousId, "ids of an index are distinct");
    previousId = entry.id;
    const key = contentIdKey(entry.id);
    assert(key.length === firstKey.length, "hashes of an index have one size");
    image.set(key, at);
    writeEntry(view, at + key.length, entryBytes, entry, {
      pack: packNumbers[i] ?? 0,
      format: formatNumbers[i] ?? 0,
    });
    at += rowBytes;
  }
  for (const name of names) {
    assert(name.length <= 255, "a pack name has at most 255 bytes");
    view.setUint8(at, name.length);
    view.setUint32(at + 1, nameOffset);
    image.set(name, nameOffset);
    nameOffset += name.length;
    at += PACK_ROW_BYTES;
  }
  for (const key of formats.values()) {
    view.setUint32(at, Math.floor(key / 0x10000));
    view.setUint16(at + 4, key % 0x10000);
    at += FORMAT_ROW_BYTES;
  }
  return image;
}

/** The six bytes of a row of the format table as one number: id, version, encryption key. */
function formatKey(entry: IndexEntry): number {
  return entry.compression * 0x10000 + entry.formatVersion * 0x100 + entry.encryptionKeyId;
}

function checkLimits(entry: IndexEntry): void {
  assert(
    entry.packedLength < CONTENT_BYTES_LIMIT && entry.originalLength < CONTENT_BYTES_LIMIT &&
      entry.packOffset < PACK_OFFSET_LIMIT,
    "lengths and offset of a content are within the format's limits",
  );
  assert(entry.timestampSeconds <= 0xffff_ffff, "a timestamp has 32 bits");
}

function writeEntry(
  view: DataView,
  at: number,
  entryBytes: number,
  entry: IndexEntry,
  numbers: { readonly pack: number; readonly format: number },
): void {
  view.setUint32(at, entry.timestampSeconds);
  view.setUint32(at + 4, entry.packOffset + (entry.deleted ? DELETED : 0));
  setUint24(view, at + 8, entry.originalLength & 0xffffff);
  setUint24(view, at + 11, entry.packedLength & 0xffffff);
  view.setUint16(at + 14, numbers.pack & 0xffff);
  if (entryBytes > 16) view.setUint8(at + 16, numbers.format);
  if (entryBytes > 17) view.setUint8(at + 17, numbers.pack >> 16);
  if (entryBytes > 18) {
    view.setUint8(at + 18, ((entry.originalLength >> 24) << 4) | (entry.packedLength >> 24));
  }
}

function setUint24(view: DataView, at: number, value: number): void {
  view.setUint16(at, value >> 8);
  view.setUint8(at + 2, value & 0xff);
}

function getUint24(view: DataView, at: number): number {
  return (view.getUint16(at) << 8) | view.getUint8(at + 2);
}

/**
 * An image to look things up in; keeps (borrows) its bytes. The constructor checks header, bounds and order and throws
 * `corruption`; so do the methods when an entry points outside the tables. Bytes after the names are ignored, as the
 * local index of a pack needs.
 */
export class IndexImage {
  /** Number of entries, tombstones included. */
  readonly count: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #keyBytes: number;
  readonly #entryBytes: number;
  readonly #rowBytes: number;
  readonly #packTable: number;
  readonly #packCount: number;
  readonly #formatTable: number;
  readonly #formatCount: number;
  readonly #baseSeconds: number;
  /** Decoded on demand: one string per pack, shared by its entries. */
  readonly #packNames = new Map<number, string>();

  constructor(bytes: Uint8Array) {
    if (bytes.length < HEADER_BYTES) throw badImage(`${bytes.length} bytes`);
    const view = viewOf(bytes);
    const version = view.getUint8(0);
    if (version !== VERSION) throw badImage(`its version is ${version}, wanted ${VERSION}`);
    this.#bytes = bytes;
    this.#view = view;
    this.#keyBytes = view.getUint8(1);
    this.#entryBytes = view.getUint16(2);
    this.count = view.getUint32(4);
    this.#packCount = view.getUint32(8);
    this.#formatCount = view.getUint8(12);
    this.#baseSeconds = view.getUint32(13);
    this.#rowBytes = this.#keyBytes + this.#entryBytes;
    this.#packTable = HEADER_BYTES + this.#rowBytes * this.count;
    this.#formatTable = this.#packTable + PACK_ROW_BYTES * this.#packCount;
    const end = this.#formatTable + FORMAT_ROW_BYTES * this.#formatCount;
    if (
      this.#keyBytes > 1 + HASH_BYTES_MAX || (this.#keyBytes < 2 && this.count > 0) ||
      this.#entryBytes < ENTRY_BYTES_MIN || this.#entryBytes > ENTRY_BYTES_MAX ||
      end > bytes.length
    ) {
      throw badImage("its header does not fit its length");
    }
    for (let i = 1; i < this.count; i++) {
      if (this.#compareRows(i - 1, i) >= 0) throw badImage(`entry ${i} is out of order`);
    }
  }

  /** The entry of a content id; undefined when this image has none. Throws `protocol` for what is no id. */
  find(id: string): IndexEntry | undefined {
    const key = contentIdKey(id);
    if (key.length !== this.#keyBytes) return undefined;
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const order = this.#compareKey(key, middle);
      if (order === 0) return this.#entry(middle, id);
      if (order < 0) high = middle;
      else low = middle + 1;
    }
    return undefined;
  }

  /** All entries in the order of their ids. */
  *entries(): Generator<IndexEntry> {
    for (let i = 0; i < this.count; i++) yield this.#entry(i, this.#idAt(i));
  }

  /** The entries of the contents with that prefix (one letter): a binary search, then only those. */
  *entriesWithPrefix(prefix: string): Generator<IndexEntry> {
    const letter = prefix.charCodeAt(0);
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#bytes[this.#rowAt(middle)] ?? 0) < letter) low = middle + 1;
      else high = middle;
    }
    for (let i = low; i < this.count && this.#bytes[this.#rowAt(i)] === letter; i++) {
      yield this.#entry(i, this.#idAt(i));
    }
  }

  #idAt(index: number): string {
    const at = this.#rowAt(index);
    return contentIdOfKey(this.#bytes.subarray(at, at + this.#keyBytes));
  }

  #rowAt(index: number): number {
    return HEADER_BYTES + this.#rowBytes * index;
  }

  #compareRows(a: number, b: number): number {
    return this.#compare(this.#bytes, this.#rowAt(a), this.#rowAt(b));
  }

  #compareKey(key: Uint8Array, index: number): number {
    return this.#compare(key, 0, this.#rowAt(index));
  }

  #compare(left: Uint8Array, leftAt: number, rightAt: number): number {
    for (let i = 0; i < this.#keyBytes; i++) {
      const difference = (left[leftAt + i] ?? 0) - (this.#bytes[rightAt + i] ?? 0);
      if (difference !== 0) return difference;
    }
    return 0;
  }

  #entry(index: number, id: string): IndexEntry {
    const view = this.#view;
    const at = this.#rowAt(index) + this.#keyBytes;
    const offset = view.getUint32(at + 4);
    const format = this.#entryBytes > 16 ? view.getUint8(at + 16) : 0;
    const packHigh = this.#entryBytes > 17 ? view.getUint8(at + 17) : 0;
    const lengthsHigh = this.#entryBytes > 18 ? view.getUint8(at + 18) : 0;
    if (format >= this.#formatCount) throw badImage(`"${id}" has format ${format}`);
    const formatAt = this.#formatTable + FORMAT_ROW_BYTES * format;
    return {
      id,
      timestampSeconds: this.#baseSeconds + view.getUint32(at),
      packBlobId: this.#packName((packHigh << 16) | view.getUint16(at + 14)),
      packOffset: offset % PACK_OFFSET_LIMIT,
      packedLength: ((lengthsHigh & 15) << 24) | getUint24(view, at + 11),
      originalLength: ((lengthsHigh >> 4) << 24) | getUint24(view, at + 8),
      deleted: offset >= DELETED,
      compression: view.getUint32(formatAt),
      formatVersion: view.getUint8(formatAt + 4),
      encryptionKeyId: view.getUint8(formatAt + 5),
    };
  }

  #packName(pack: number): string {
    const known = this.#packNames.get(pack);
    if (known !== undefined) return known;
    if (pack >= this.#packCount) throw badImage(`it refers to pack ${pack} of ${this.#packCount}`);
    const at = this.#packTable + PACK_ROW_BYTES * pack;
    const offset = this.#view.getUint32(at + 1);
    const end = offset + this.#view.getUint8(at);
    if (end > this.#bytes.length) throw badImage(`the name of pack ${pack} lies outside`);
    const name = fromUtf8(this.#bytes.subarray(offset, end));
    this.#packNames.set(pack, name);
    return name;
  }
}

/** Numbers distinct keys in the order of their first appearance. */
class Numbering<K> {
  readonly #numbers = new Map<K, number>();

  numberOf(key: K): number {
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    const next = this.#numbers.size;
    this.#numbers.set(key, next);
    return next;
  }

  get size(): number {
    return this.#numbers.size;
  }

  values(): Iterable<K> {
    return this.#numbers.keys();
  }
}

function badImage(what: string): AppError {
  return new AppError("corruption", `Read an index image: ${what}`);
}
