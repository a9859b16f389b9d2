/**
 * Decoder of a "klio WAL file, version 1" (FORMAT.md). Takes the file in pieces of any size and hands out content only
 * after its code was verified: wrong bytes never leave it. Holds at most one unit (about 1 MiB) plus what was pushed.
 * Anything wrong is `corruption`.
 *
 * @module
 */

import { type Bytes, concat, equalBytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import {
  applyKeystream,
  decodeDescription,
  decodeHeader,
  decodeLead,
  deriveKeys,
  DESCRIPTION_OPEN_BYTES,
  HEAD_BYTES,
  HEADER_BYTES,
  LEAD_OPEN_BYTES,
  MAC_BYTES,
  type UnitLead,
  unitMac,
  type WalFileDescription,
  type WalFileKeys,
} from "./format.ts";
import { decompressUnit } from "./unit_frame.ts";

interface PendingUnit extends UnitLead {
  readonly mac: Uint8Array;
  /** Ciphertext of the lead that the code covers. */
  readonly open: Uint8Array;
}

/** State after the head was verified. */
interface Opened {
  readonly keys: WalFileKeys;
  readonly description: WalFileDescription;
}

/** See the module comment. */
export class WalFileDecoder {
  readonly #archiveKey: Uint8Array;
  #opened: Opened | undefined;
  #mac: Uint8Array = new Uint8Array(0);
  #pending: Bytes = new Uint8Array(0);
  #unit: PendingUnit | undefined;
  #offset = 0;
  #bodyBytes = 0;

  constructor(archiveKey: Uint8Array) {
    this.#archiveKey = archiveKey;
  }

  /** Known once {@link HEAD_BYTES} bytes were pushed. */
  get description(): WalFileDescription | undefined {
    return this.#opened?.description;
  }

  /** Content bytes verified so far. */
  get offset(): number {
    return this.#offset;
  }

  /** True when nothing but whole units was pushed. */
  get atUnitEnd(): boolean {
    return this.#opened !== undefined && this.#unit === undefined && this.#pending.length === 0;
  }

  /**
   * Takes the next bytes of the file (borrowed) and yields verified content, one owned array per unit. Throws
   * `corruption`; the decoder is of no use after that.
   */
  *push(bytes: Uint8Array): Generator<Bytes, void, undefined> {
    this.#pending = concat([this.#pending, bytes]);
    let used = 0;
    const take = (count: number): Bytes | undefined => {
      if (this.#pending.length - used < count) return undefined;
      used += count;
      return this.#pending.subarray(used - count, used);
    };
    try {
      if (this.#opened === undefined) {
        const head = take(HEAD_BYTES);
        if (head === undefined) return;
        this.#opened = this.#open(head);
      }
      for (;;) {
        this.#unit ??= this.#lead(this.#opened, take(LEAD_OPEN_BYTES + MAC_BYTES));
        if (this.#unit === undefined) return;
        const frame = take(this.#unit.frameBytes);
        if (frame === undefined) return;
        const content = this.#content(this.#opened, this.#unit, frame);
        this.#unit = undefined;
        yield content;
      }
    } finally {
      this.#pending = this.#pending.slice(used);
    }
  }

  /** Call after the last byte of a file that should be whole. Throws `corruption` when something is missing. */
  finish(): void {
    const wanted = this.#opened?.description.sizeBytes;
    if (!this.atUnitEnd || this.#offset !== wanted) {
      throw new AppError(
        "corruption",
        `Decode WAL file: it ends after ${this.#offset} content bytes, wanted ${
          wanted ?? "a whole head"
        }`,
      );
    }
  }

  #open(head: Uint8Array): Opened {
    const header = head.subarray(0, HEADER_BYTES);
    const keys = deriveKeys(this.#archiveKey, decodeHeader(header));
    const plain = this.#decrypt(keys, head.subarray(HEADER_BYTES));
    const open = head.subarray(HEADER_BYTES, HEADER_BYTES + DESCRIPTION_OPEN_BYTES);
    this.#verify(keys, header, [open], plain.subarray(DESCRIPTION_OPEN_BYTES));
    return { keys, description: decodeDescription(plain) };
  }

  #lead(opened: Opened, bytes: Bytes | undefined): PendingUnit | undefined {
    if (bytes === undefined) return undefined;
    const plain = this.#decrypt(opened.keys, bytes);
    return {
      ...decodeLead(plain, this.#offset),
      mac: plain.subarray(LEAD_OPEN_BYTES),
      open: bytes.slice(0, LEAD_OPEN_BYTES),
    };
  }

  #content(opened: Opened, unit: PendingUnit, frame: Uint8Array): Bytes {
    this.#verify(opened.keys, this.#mac, [unit.open, frame], unit.mac);
    const walBytes = unit.endOffset - this.#offset;
    if (unit.endOffset > opened.description.sizeBytes) throw this.#damaged("is too long");
    let content: Bytes;
    try {
      content = decompressUnit(this.#decrypt(opened.keys, frame), walBytes);
    } catch (error) {
      throw this.#damaged("does not decompress", error);
    }
    this.#offset = unit.endOffset;
    return content;
  }

  /** The next bytes of the body, in order. */
  #decrypt(keys: WalFileKeys, bytes: Uint8Array): Bytes {
    const plain = concat(applyKeystream(keys, this.#bodyBytes, [bytes]));
    this.#bodyBytes += bytes.length;
    return plain;
  }

  #verify(
    keys: WalFileKeys,
    previous: Uint8Array,
    parts: readonly Uint8Array[],
    found: Uint8Array,
  ): void {
    this.#mac = unitMac(keys, previous, parts);
    if (!equalBytes(this.#mac, found)) {
      throw this.#damaged(
        this.#opened === undefined
          ? "does not start as one of this archive: damaged, or of another archive key"
          : "has a wrong authentication code",
      );
    }
  }

  #damaged(what: string, cause?: unknown): AppError {
    const where = this.#opened === undefined ? "the file" : `the unit at offset ${this.#offset}`;
    return new AppError("corruption", `Decode WAL file: ${where} ${what}`, { cause });
  }
}

/** A whole small file at once. Throws `corruption`. */
export function decodeWalFile(
  archiveKey: Uint8Array,
  file: Uint8Array,
): { readonly description: WalFileDescription; readonly content: Bytes } {
  const decoder = new WalFileDecoder(archiveKey);
  const parts = [...decoder.push(file)];
  decoder.finish();
  const { description } = decoder;
  if (description === undefined) throw new AppError("corruption", "Decode WAL file: it is empty");
  return { description, content: concat(parts) };
}
