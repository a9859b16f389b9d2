/**
 * What a replication client sends after start-up: simple queries, standby status updates, CopyDone (PostgreSQL manual,
 * "Streaming Replication Protocol" and "Message Formats"). Results are owned.
 *
 * @module
 */

import { assert } from "../../base/assert.ts";
import { type Bytes, utf8, viewOf } from "../../base/bytes.ts";
import type { Lsn } from "../../domain/lsn.ts";
import { pgTimeFromMs } from "./pg_time.ts";

/** CopyDone. */
export const COPY_DONE: Uint8Array = Uint8Array.of(0x63, 0, 0, 0, 4);

/** A simple Query message. */
export function encodeQuery(text: string): Bytes {
  const body = utf8(text);
  assert(!body.includes(0), "a query has no NUL");
  const message = new Uint8Array(1 + 4 + body.length + 1);
  message[0] = 0x51; // Q
  viewOf(message).setUint32(1, message.length - 1);
  message.set(body, 5);
  return message;
}

/** Positions of a standby status update; `0/0` says "unknown" and is ignored by PostgreSQL. */
export interface StandbyPositions {
  readonly write: Lsn;
  readonly flush: Lsn;
  readonly apply: Lsn;
  readonly replyRequested: boolean;
}

const STATUS_BYTES = 34;

/** A standby status update in its CopyData frame. */
export function encodeStandbyStatus(status: StandbyPositions, nowMs: number): Bytes {
  const message = new Uint8Array(1 + 4 + STATUS_BYTES);
  const view = viewOf(message);
  message[0] = 0x64; // d
  view.setUint32(1, 4 + STATUS_BYTES);
  message[5] = 0x72; // r
  view.setBigUint64(6, status.write);
  view.setBigUint64(14, status.flush);
  view.setBigUint64(22, status.apply);
  view.setBigInt64(30, pgTimeFromMs(nowMs));
  message[38] = status.replyRequested ? 1 : 0;
  return message;
}
