/**
 * CRC-32C agrees with the published vectors and with a bit-by-bit twin, however the bytes are cut.
 *
 * @module
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { utf8 } from "../base/bytes.ts";
import { crc32c, CRC32C_BEGIN, CRC32C_WINDOW, crc32cEnd } from "./crc32c.ts";

/** The definition, one bit at a time. */
function twin(bytes: Uint8Array): number {
  let state = -1;
  for (const byte of bytes) {
    state ^= byte;
    for (let bit = 0; bit < 8; bit++) state = (state >>> 1) ^ (state & 1 ? 0x82f63b78 : 0);
  }
  return ~state >>> 0;
}

Deno.test("crc32c() gives the values of RFC 3720 appendix B.4", () => {
  const counted = Uint8Array.from({ length: 32 }, (_, i) => i);
  const readCommand = new Uint8Array(48);
  readCommand.set([0x01, 0xc0]);
  readCommand.set([0x14, 0, 0, 0, 0, 0, 0x04, 0, 0, 0, 0, 0x14, 0, 0, 0, 0x18, 0x28], 16);
  readCommand[40] = 0x02;
  const vectors: ReadonlyArray<readonly [Uint8Array, number]> = [
    [new Uint8Array(32), 0x8a9136aa],
    [new Uint8Array(32).fill(0xff), 0x62a8ab43],
    [counted, 0x46dd794e],
    [counted.toReversed(), 0x113fdb5c],
    [readCommand, 0xd9963a56],
    [utf8("123456789"), 0xe3069283],
    [new Uint8Array(0), 0],
  ];
  for (const [bytes, wanted] of vectors) assert.equal(crc32c(bytes), wanted);
});

Deno.test("crc32c() equals its bit-by-bit twin for every length and continues from any cut", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(400), (bytes, cut) => {
    const wanted = twin(bytes);
    assert.equal(crc32c(bytes), wanted);
    assert.equal(crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut))), wanted);
  }));
});

Deno.test("crc32c() sums more than its window holds", () => {
  const bytes = Uint8Array.from({ length: CRC32C_WINDOW.sizeBytes * 2 + 5 }, (_, i) => i * 31 >> 3);
  assert.equal(crc32c(bytes), twin(bytes));
});

Deno.test("update() sums from any offset of the window", () => {
  const { bytes, start, update } = CRC32C_WINDOW;
  const sample = utf8("thirty-three bytes, more or less.");
  for (let shift = 0; shift < 16; shift++) {
    bytes.set(sample, start + shift);
    const state = update(CRC32C_BEGIN, start + shift, start + shift + sample.length);
    assert.equal(crc32cEnd(state), twin(sample));
  }
});
