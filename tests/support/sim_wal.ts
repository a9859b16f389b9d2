/**
 * WAL of a simulated cluster: a pure function of the timeline that wrote a byte and of its position, so that no world
 * stores it and every range can be compared. Pieces are views of one pattern per timeline, hence nearly free; they
 * compress well. Whoever changes one breaks every later comparison, which is what we want to see.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { concat } from "../../src/base/bytes.ts";
import { type Lsn, lsnAdd, lsnDistance, lsnMin, segmentOffset } from "../../src/domain/lsn.ts";

/** The smallest that PostgreSQL allows. */
export const SIM_SEGMENT_BYTES = 1 << 20;
const RUN_BYTES = 512;
const patterns = new Map<number, Uint8Array>();

/** Two segments long, so that every segment may begin at another place of it. */
function patternOf(timeline: number): Uint8Array {
  let pattern = patterns.get(timeline);
  if (pattern === undefined) {
    pattern = new Uint8Array(2 * SIM_SEGMENT_BYTES);
    for (let at = 0; at < pattern.length; at += RUN_BYTES) {
      pattern.fill(Math.imul(at / RUN_BYTES + timeline, 0x9e3779b1) >>> 24, at, at + RUN_BYTES);
    }
    patterns.set(timeline, pattern);
  }
  return pattern;
}

function piece(timeline: number, position: Lsn, length: number): Uint8Array {
  const segment = Number(position / BigInt(SIM_SEGMENT_BYTES));
  const shift = (segment * 37 % 251) * 4096 + segmentOffset(position, SIM_SEGMENT_BYTES);
  return patternOf(timeline).subarray(shift, shift + length);
}

/** Which timeline wrote what `timeline` has at `position`; `switchPoints[i]` is where timeline `i + 1` was left. */
export function writerOf(timeline: number, position: Lsn, switchPoints: readonly Lsn[]): number {
  const index = switchPoints.slice(0, timeline - 1).findIndex((point) => position < point);
  return index === -1 ? timeline : index + 1;
}

/** The bytes of `timeline` from `from` to `to`; to be read only. */
export function simWal(
  timeline: number,
  range: { readonly from: Lsn; readonly to: Lsn },
  switchPoints: readonly Lsn[],
): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = range.from; at < range.to;) {
    const room = SIM_SEGMENT_BYTES - segmentOffset(at, SIM_SEGMENT_BYTES);
    const writer = writerOf(timeline, at, switchPoints);
    let end = lsnMin(range.to, lsnAdd(at, room));
    if (writer < timeline) end = lsnMin(end, switchPoints[writer - 1] ?? end);
    parts.push(piece(writer, at, lsnDistance(at, end)));
    at = end;
  }
  const [first] = parts;
  return parts.length === 1 && first !== undefined ? first : concat(parts);
}

/** Compared natively: worlds compare megabytes. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
