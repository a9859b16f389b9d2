/**
 * Bytes that stand for WAL where nobody parses it: a pure function of timeline and position, so that any range can be made
 * twice and compared.
 *
 * @module
 */

import type { Bytes } from "../../src/base/bytes.ts";
import { type Lsn, type TimelineId, timelineId } from "../../src/domain/lsn.ts";

const RUN_BYTES = 512;

/** The bytes from `position` on. */
export function wal(position: Lsn, length: number, timeline: TimelineId = timelineId(1)): Bytes {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const here = Number((position + BigInt(at)) % (1n << 40n));
    const run = Math.floor(here / RUN_BYTES);
    const count = Math.min(length - at, RUN_BYTES - here % RUN_BYTES);
    bytes.fill(Math.imul(run + timeline, 0x9e3779b1) >>> 24, at, at + count);
    at += count;
  }
  return bytes;
}
