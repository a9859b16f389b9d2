/**
 * Parser of what PostgreSQL sends on a replication connection after start-up, over chunks cut anywhere. Small messages are
 * gathered (with a cap); the WAL payload of an XLogData is handed out piece by piece as views into the chunks, without a
 * copy: a piece is a `data` message of its own, whose `start` moves along. The chunks belong to the parser's caller
 * for good, so the views are owned by whoever gets them.
 *
 * Throws `protocol` on anything that PostgreSQL 15-18 never sends here; the parser is of no use afterwards.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";
import { type Bytes, fromUtf8, viewOf } from "../../base/bytes.ts";
import { type Lsn, lsn, lsnAdd } from "../../domain/lsn.ts";

/** A message of the backend, decoded. */
export type BackendMessage =
  | { readonly kind: "data"; readonly start: Lsn; readonly walEnd: Lsn; readonly bytes: Uint8Array }
  | { readonly kind: "keepalive"; readonly walEnd: Lsn; readonly replyRequested: boolean }
  | { readonly kind: "row"; readonly columns: ReadonlyArray<Bytes | undefined> }
  | { readonly kind: "error"; readonly code: string; readonly message: string }
  | { readonly kind: "copy_both" }
  | { readonly kind: "copy_done" }
  | { readonly kind: "command_complete" }
  | { readonly kind: "ready" };

/** Cap of a message that is gathered; the largest legal one is a row with a timeline history file. */
export const MESSAGE_BYTES_MAX = 16 << 20;
/** Cap of an XLogData; PostgreSQL sends at most 128 KiB of WAL in one. */
export const DATA_BYTES_MAX = 1 << 24;

const HEADER_BYTES = 5;
/** Type byte, start, end, time. */
const XLOG_DATA_HEADER_BYTES = 1 + 8 + 8 + 8;
const KEEPALIVE_BYTES = 1 + 8 + 8 + 1;
const COPY_DATA = 0x64;
const XLOG_DATA = 0x77;
const KEEPALIVE = 0x6b;

/** See the module comment. */
export class BackendParser {
  /** Bytes of an incomplete header or small message. */
  #held: Bytes = new Uint8Array(4096);
  #heldBytes = 0;
  /** The XLogData whose payload is passing through. */
  #data: { start: Lsn; readonly walEnd: Lsn; leftBytes: number } | undefined;

  /** Messages that are complete with this chunk, in order. */
  push(chunk: Uint8Array): BackendMessage[] {
    const messages: BackendMessage[] = [];
    let offset = 0;
    while (offset < chunk.length) {
      if (this.#data !== undefined) {
        const bytes = chunk.subarray(offset, offset + this.#data.leftBytes);
        messages.push({ kind: "data", start: this.#data.start, walEnd: this.#data.walEnd, bytes });
        offset += bytes.length;
        this.#data.start = lsnAdd(this.#data.start, bytes.length);
        this.#data.leftBytes -= bytes.length;
        if (this.#data.leftBytes === 0) this.#data = undefined;
        continue;
      }
      const wanted = this.#wantedBytes();
      const part = chunk.subarray(offset, offset + wanted - this.#heldBytes);
      this.#hold(part, wanted);
      offset += part.length;
      if (this.#heldBytes < wanted) break;
      // The header may have told that more is wanted.
      if (this.#wantedBytes() === this.#heldBytes) this.#finish(messages);
    }
    return messages;
  }

  /** How many bytes to gather before the next decision, those already held included. */
  #wantedBytes(): number {
    if (this.#heldBytes < HEADER_BYTES) return HEADER_BYTES;
    const type = this.#held[0] ?? 0;
    const length = viewOf(this.#held).getUint32(1);
    const body = length - 4;
    if (type === COPY_DATA) {
      if (body < 1 || body > DATA_BYTES_MAX) throw tooLong("CopyData", body, DATA_BYTES_MAX);
      if (this.#heldBytes === HEADER_BYTES) return HEADER_BYTES + 1;
      if (this.#held[HEADER_BYTES] === XLOG_DATA) {
        if (body < XLOG_DATA_HEADER_BYTES) throw invalid("an XLogData shorter than its header");
        return HEADER_BYTES + XLOG_DATA_HEADER_BYTES;
      }
      if (this.#held[HEADER_BYTES] !== KEEPALIVE || body !== KEEPALIVE_BYTES) {
        throw invalid(`CopyData of type ${this.#held[HEADER_BYTES]} and ${body} bytes`);
      }
      return HEADER_BYTES + KEEPALIVE_BYTES;
    }
    if (body < 0 || body > MESSAGE_BYTES_MAX) {
      throw tooLong(`message of type ${type}`, body, MESSAGE_BYTES_MAX);
    }
    return HEADER_BYTES + body;
  }

  /** Grows as bytes arrive, not as a length promises: a lie about the length costs no memory. */
  #hold(part: Uint8Array, wanted: number): void {
    const needed = this.#heldBytes + part.length;
    if (needed > this.#held.length) {
      const grown = new Uint8Array(Math.min(wanted, Math.max(needed, this.#held.length * 2)));
      grown.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = grown;
    }
    this.#held.set(part, this.#heldBytes);
    this.#heldBytes = needed;
  }

  #finish(messages: BackendMessage[]): void {
    const type = this.#held[0] ?? 0;
    const body = this.#held.subarray(HEADER_BYTES, this.#heldBytes);
    const view = viewOf(body);
    if (type === COPY_DATA && body[0] === XLOG_DATA) {
      const leftBytes = viewOf(this.#held).getUint32(1) - 4 - XLOG_DATA_HEADER_BYTES;
      if (leftBytes > 0) {
        const start = view.getBigUint64(1);
        if (start + BigInt(leftBytes) >= 1n << 64n) throw invalid("WAL past the last position");
        this.#data = { start: lsn(start), walEnd: lsn(view.getBigUint64(9)), leftBytes };
      }
    } else if (type === COPY_DATA) {
      messages.push({
        kind: "keepalive",
        walEnd: lsn(view.getBigUint64(1)),
        replyRequested: body[17] === 1,
      });
    } else {
      const message = decodeSmall(type, body);
      if (message !== undefined) messages.push(message);
    }
    this.#heldBytes = 0;
  }
}

/** Everything that is not CopyData; undefined for what says nothing to us. */
function decodeSmall(type: number, body: Bytes): BackendMessage | undefined {
  switch (String.fromCharCode(type)) {
    case "D":
      return { kind: "row", columns: decodeRow(body) };
    case "E":
      return decodeError(body);
    case "W":
      return { kind: "copy_both" };
    case "c":
      return { kind: "copy_done" };
    case "C":
      return { kind: "command_complete" };
    case "Z":
      return { kind: "ready" };
    case "T": // RowDescription: klio knows the columns of its commands
    case "S": // ParameterStatus
    case "N": // NoticeResponse
    case "A": // NotificationResponse
      return undefined;
    default:
      throw invalid(`a message of unknown type ${type}`);
  }
}

function decodeRow(body: Bytes): Array<Bytes | undefined> {
  if (body.length < 2) throw invalid("a row without a column count");
  const view = viewOf(body);
  const columns: Array<Bytes | undefined> = [];
  let offset = 2;
  for (let left = view.getUint16(0); left > 0; left--) {
    if (offset + 4 > body.length) throw invalid("a row that ends in a column");
    const length = view.getInt32(offset);
    offset += 4;
    if (length === -1) {
      columns.push(undefined);
      continue;
    }
    if (length < 0 || offset + length > body.length) throw invalid("a row that ends in a column");
    columns.push(body.slice(offset, offset + length));
    offset += length;
  }
  if (offset !== body.length) throw invalid("a row with bytes after its last column");
  return columns;
}

/** Fields: type byte, text, NUL; a NUL ends the list. */
function decodeError(body: Bytes): BackendMessage {
  const fields = new Map<string, string>();
  for (let offset = 0; offset < body.length && body[offset] !== 0;) {
    const end = body.indexOf(0, offset + 1);
    if (end === -1) throw invalid("an error message without its end");
    fields.set(String.fromCharCode(body[offset] ?? 0), fromUtf8(body.subarray(offset + 1, end)));
    offset = end + 1;
  }
  return { kind: "error", code: fields.get("C") ?? "", message: fields.get("M") ?? "" };
}

function invalid(found: string): AppError {
  return new AppError("protocol", `Read from PostgreSQL: found ${found}`);
}

function tooLong(what: string, bytes: number, bytesMax: number): AppError {
  return invalid(`a ${what} of ${bytes} bytes, at most ${bytesMax} are legal`);
}
