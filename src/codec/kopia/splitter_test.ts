/**
 * Splitters against cut lists that the package `repo/splitter` of stock kopia v0.22.3 gave for the same bytes. The vectors that
 * need Go's own random numbers are in `tests/integration/splitter_vectors_test.ts`.
 *
 * @module
 */

import assert from "node:assert/strict";
import { BuzhashSplitter, newSplitter, type Splitter } from "./splitter.ts";

const SIZE_BYTES = 5_000_000;

/** Incompressible bytes: the high bytes of Marsaglia's xorshift32 with seed 1. */
function noise(): Uint8Array {
  const bytes = new Uint8Array(SIZE_BYTES);
  let x = 1;
  for (let i = 0; i < bytes.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

/** Like heap pages: each block of 8 KiB ends in zeros. */
function pages(): Uint8Array {
  return noise().map((byte, i) => i % 8192 >= 3000 + (Math.floor(i / 8192) * 37) % 4000 ? 0 : byte);
}

const NOISE = noise();
const PAGES = pages();

/** Lengths of the pieces, the last one included. `slice` bytes are handed over at a time. */
function cut(splitter: Splitter, data: Uint8Array, slice: () => number): number[] {
  const lengths: number[] = [];
  let length = 0;
  for (let at = 0; at < data.length;) {
    const part = data.subarray(at, at + slice());
    const count = splitter.next(part);
    at += count < 0 ? part.length : count;
    length += count < 0 ? part.length : count;
    if (count < 0) continue;
    lengths.push(length);
    length = 0;
  }
  return [...lengths, length];
}

const whole = () => SIZE_BYTES;

Deno.test("FIXED-128K cuts like stock kopia", () => {
  assert.deepEqual(cut(newSplitter("FIXED-128K"), NOISE, whole), [
    ...Array.from({ length: 38 }, () => 131072),
    19264,
  ]);
});

Deno.test("DYNAMIC-*-BUZHASH cuts noise like stock kopia", () => {
  assert.deepEqual(cut(newSplitter("DYNAMIC-128K-BUZHASH"), NOISE, whole), [
    174129,
    231857,
    175345,
    262144,
    87878,
    224969,
    76367,
    120408,
    262144,
    130699,
    150842,
    103643,
    193751,
    262144,
    79723,
    76063,
    262144,
    262144,
    226839,
    67154,
    110832,
    262144,
    262144,
    202777,
    93514,
    100993,
    262144,
    177022,
    98043,
  ]);
  assert.deepEqual(cut(newSplitter("DYNAMIC-512K-BUZHASH"), NOISE, whole), [
    943008,
    324094,
    991562,
    1048576,
    1048576,
    644184,
  ]);
  assert.deepEqual(cut(newSplitter("DYNAMIC-4M-BUZHASH"), NOISE, whole), [4462791, 537209]);
});

Deno.test("DYNAMIC-*-BUZHASH cuts pages with holes at the minimum, like stock kopia", () => {
  assert.deepEqual(cut(newSplitter("DYNAMIC-128K-BUZHASH"), PAGES, whole), [
    ...Array.from({ length: 76 }, () => 65536),
    19264,
  ]);
  assert.deepEqual(cut(newSplitter("DYNAMIC-4M-BUZHASH"), PAGES, whole), [
    2097152,
    2097152,
    805696,
  ]);
});

Deno.test("the cuts do not depend on how the bytes are handed over", () => {
  const data = NOISE.subarray(0, 300_000);
  for (const splitter of [new BuzhashSplitter(1024), new BuzhashSplitter(65536)]) {
    const expected = cut(splitter, data, whole);
    for (const size of [1, 63, 64, 65, 1000, 33_000]) {
      splitter.reset();
      assert.deepEqual(cut(splitter, data, () => size), expected, `slices of ${size}`);
    }
  }
});

Deno.test("reset() starts an object anew, whatever came before", () => {
  for (const name of ["FIXED-128K", "DYNAMIC-128K-BUZHASH"]) {
    const splitter = newSplitter(name);
    const expected = cut(splitter, NOISE, whole);
    splitter.next(NOISE.subarray(1, 100_000));
    splitter.reset();
    assert.deepEqual(cut(splitter, NOISE, whole), expected);
  }
});

Deno.test("newSplitter() knows the old names and refuses what it cannot do", () => {
  assert.equal(newSplitter("").pieceBytesMax, 4 << 20);
  assert.equal(newSplitter("DYNAMIC").pieceBytesMax, 8 << 20);
  for (const name of ["DYNAMIC-4M-RABINKARP", "FIXED-3M", "fixed-128k", "constructor"]) {
    assert.throws(() => newSplitter(name), { name: "AppError", kind: "config" });
  }
});
