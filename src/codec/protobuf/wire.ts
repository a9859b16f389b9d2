/**
 * The wire level of protobuf (encoding of proto3): varints, tags, bounds-checked reading. Garbage gives only `protocol`.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";
import { assert } from "../../base/assert.ts";
import { type Bytes, viewOf } from "../../base/bytes.ts";

/** Wire types. Groups (3 and 4) do not exist in proto3 and are refused. */
export const WIRE = { varint: 0, fixed64: 1, delimited: 2, fixed32: 5 } as const;

const TWO_32 = 2 ** 32;
const VARINT_BYTES_MAX = 10;
/** Field numbers end here. */
const FIELD_NUMBER_MAX = 2 ** 29 - 1;
const STRICT_UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function broken(what: string): AppError {
  return new AppError("protocol", `Decode protobuf message: ${what}`);
}

/** A 64-bit varint as two unsigned halves. */
interface Halves {
  low: number;
  high: number;
}

/** Reads from the start of `bytes` to its end; positions never leave it. */
export class WireReader {
  readonly #bytes: Bytes;
  readonly #halves: Halves = { low: 0, high: 0 };
  #position: number;
  #end: number;

  constructor(bytes: Bytes) {
    this.#bytes = bytes;
    this.#position = 0;
    this.#end = bytes.length;
  }

  get atEnd(): boolean {
    return this.#position === this.#end;
  }

  /** Restricts reading to the next delimited field; returns the end to go back to with {@link leave}. */
  enter(): number {
    const length = this.#length();
    const outer = this.#end;
    this.#end = this.#position + length;
    return outer;
  }

  /** Ends what {@link enter} began. */
  leave(outer: number): void {
    assert(this.atEnd, "a nested message is read to its end");
    this.#end = outer;
  }

  /** Field number and wire type of the next field. */
  tag(): { readonly number: number; readonly wire: number } {
    const { low, high } = this.#varint();
    const number = low >>> 3;
    if (high !== 0 || number === 0 || number > FIELD_NUMBER_MAX) throw broken("wrong field number");
    return { number, wire: low & 7 };
  }

  /** Low 32 bits, unsigned: what protobuf does to a 32-bit field that is too large. */
  uint32(): number {
    return this.#varint().low;
  }

  bool(): boolean {
    const { low, high } = this.#varint();
    return low !== 0 || high !== 0;
  }

  uint64(): bigint {
    const { low, high } = this.#varint();
    return BigInt(high) << 32n | BigInt(low);
  }

  int64(): bigint {
    return BigInt.asIntN(64, this.uint64());
  }

  /** An int64 that must be exact as a number. */
  int64AsNumber(): number {
    const { low, high } = this.#varint();
    const value = (high | 0) * TWO_32 + low;
    if (!Number.isSafeInteger(value)) throw broken("integer exceeds 2^53");
    return value;
  }

  /** A uint64 that must be exact as a number. */
  uint64AsNumber(): number {
    const { low, high } = this.#varint();
    const value = high * TWO_32 + low;
    if (!Number.isSafeInteger(value)) throw broken("integer exceeds 2^53");
    return value;
  }

  fixed64(): bigint {
    const start = this.#take(8);
    return viewOf(this.#bytes).getBigUint64(start, true);
  }

  /** View of a delimited field. */
  bytes(): Bytes {
    const length = this.#length();
    const start = this.#take(length);
    return this.#bytes.subarray(start, start + length);
  }

  string(): string {
    try {
      return STRICT_UTF8.decode(this.bytes());
    } catch (cause) {
      if (cause instanceof AppError) throw cause;
      throw new AppError("protocol", "Decode protobuf message: string is not UTF-8", { cause });
    }
  }

  /** Passes over a field of this wire type. */
  skip(wire: number): void {
    if (wire === WIRE.varint) this.#varint();
    else if (wire === WIRE.fixed64) this.#take(8);
    else if (wire === WIRE.fixed32) this.#take(4);
    else if (wire === WIRE.delimited) this.#take(this.#length());
    else throw broken(`wire type ${wire}`);
  }

  /** Advances by `count`; the position before. */
  #take(count: number): number {
    if (count > this.#end - this.#position) throw broken("truncated");
    const start = this.#position;
    this.#position += count;
    return start;
  }

  #length(): number {
    const { low, high } = this.#varint();
    if (high !== 0 || low > this.#end - this.#position) throw broken("length exceeds the message");
    return low;
  }

  #varint(): Halves {
    let low = 0;
    let high = 0;
    for (let i = 0; i < VARINT_BYTES_MAX; i++) {
      if (this.#position >= this.#end) throw broken("truncated");
      const byte = this.#bytes[this.#position++] ?? 0;
      const bits = byte & 0x7f;
      if (i < 4) low |= bits << (7 * i);
      else if (i === 4) {
        low |= bits << 28;
        high = bits >>> 4;
      } else high |= bits << (7 * i - 32);
      if (byte < 0x80) {
        this.#halves.low = low >>> 0;
        this.#halves.high = high >>> 0;
        return this.#halves;
      }
    }
    throw broken("varint longer than 10 bytes");
  }
}

/** Bytes that an unsigned number up to 2^53 takes as a varint. */
export function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) size++;
  return size;
}

/** Bytes that a 64-bit value (two's complement when negative) takes as a varint. */
export function varint64Size(value: bigint): number {
  let size = 1;
  for (let rest = BigInt.asUintN(64, value); rest >= 0x80n; rest >>= 7n) size++;
  return size;
}

const ENCODER = new TextEncoder();

/** Writes into exactly the space it was given; running past it or stopping short is a bug. */
export class WireWriter {
  readonly #bytes: Bytes;
  #position = 0;

  constructor(sizeBytes: number) {
    this.#bytes = new Uint8Array(sizeBytes);
  }

  finish(): Bytes {
    assert(this.#position === this.#bytes.length, "a message has the size that was computed");
    return this.#bytes;
  }

  varint(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.#bytes[this.#position++] = rest % 0x80 | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#bytes[this.#position++] = rest;
  }

  varint64(value: bigint): void {
    let rest = BigInt.asUintN(64, value);
    while (rest >= 0x80n) {
      this.#bytes[this.#position++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.#bytes[this.#position++] = Number(rest);
  }

  fixed64(value: bigint): void {
    viewOf(this.#bytes).setBigUint64(this.#position, value, true);
    this.#position += 8;
  }

  bytes(value: Uint8Array): void {
    this.#bytes.set(value, this.#position);
    this.#position += value.length;
  }

  string(value: string): void {
    this.#position += ENCODER.encodeInto(value, this.#bytes.subarray(this.#position)).written;
  }
}
