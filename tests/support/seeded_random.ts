/**
 * A {@link Random} that a seed replays: the same seed gives the same floats and bytes on every machine. Generator: sfc32
 * (Chris Doty-Humphrey's small fast counting generator), good enough for simulations and never for keys outside tests.
 *
 * @module
 */

import { assert } from "../../src/base/assert.ts";
import type { Random } from "../../src/base/clock.ts";

/** See the module comment. */
export class SeededRandom implements Random {
  readonly seed: number;
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** `seed` is an unsigned 32-bit integer; a failing test prints it. */
  constructor(seed: number) {
    assert(Number.isInteger(seed) && seed >= 0 && seed <= 0xffff_ffff, "a seed fits 32 bits");
    this.seed = seed;
    this.#a = 0x9e37_79b9;
    this.#b = 0x243f_6a88;
    this.#c = seed | 0;
    for (let round = 0; round < 15; round++) this.#next(); // neighbouring seeds part ways
  }

  float(): number {
    return this.#next() / 2 ** 32;
  }

  bytes(count: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(count);
    let word = 0;
    for (let i = 0; i < count; i++) {
      if (i % 4 === 0) word = this.#next();
      bytes[i] = word & 0xff;
      word >>>= 8;
    }
    return bytes;
  }

  /** Uniform integer from `min` to `max`, both included. */
  integer(min: number, max: number): number {
    assert(max >= min, "the range is not empty");
    return min + Math.floor(this.float() * (max - min + 1));
  }

  /** One of `items`, which is not empty. */
  pick<T>(items: readonly [T, ...T[]]): T {
    return items[this.integer(0, items.length - 1)] ?? items[0];
  }

  /** A generator of its own, so that one consumer's appetite does not change what the others get. */
  fork(): SeededRandom {
    return new SeededRandom(this.#next());
  }

  #next(): number {
    const result = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + result | 0;
    return result >>> 0;
  }
}
