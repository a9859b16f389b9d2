/**
 * Data to measure with. Speed of compression and dedup is a property of the data, so it is made to look like what klio moves: heap
 * pages of rows that repeat words and count upwards, neither random nor empty. A seed makes every run use the same bytes.
 *
 * @module
 */

import { utf8 } from "../../src/base/bytes.ts";
import { SeededRandom } from "../support/seeded_random.ts";

const WORDS = [
  "delivered",
  "pending",
  "cancelled",
  "Hamburg",
  "Lyon",
  "standard",
  "express",
] as const;
const ROW_BYTES = 96;

/** `sizeBytes` of rows: a counter, four random bytes and a few words each. zstd level 1 leaves about a fifth. */
export function rows(sizeBytes: number, seed = 1): Uint8Array<ArrayBuffer> {
  const random = new SeededRandom(seed);
  const bytes = new Uint8Array(sizeBytes);
  const view = new DataView(bytes.buffer);
  for (let offset = 0; offset + ROW_BYTES <= sizeBytes; offset += ROW_BYTES) {
    view.setUint32(offset, offset / ROW_BYTES, true);
    bytes.set(random.bytes(4), offset + 4);
    const words = Array.from({ length: 6 }, () => random.pick(WORDS)).join("|");
    bytes.set(utf8(words).subarray(0, ROW_BYTES - 8), offset + 8);
  }
  return bytes;
}
