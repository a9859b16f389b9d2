/**
 * Splitters: where an object is cut into contents (reference/kopia.md 2.4). The splitter is a property of the repository, so
 * that every client cuts alike and finds what others stored; readers do not care. FIXED cuts every N bytes; BUZHASH
 * cuts where a rolling hash of the last 64 bytes has its low bits clear, between N/2 and 2N bytes. RABINKARP needs 64-bit
 * arithmetic, is default nowhere and is not supported for writing.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";

/** Cuts one object. Objects start anew with {@link Splitter.reset}. */
export interface Splitter {
  /**
   * Takes the next bytes (borrowed) and gives the count of them that belong to the current piece, up to and including its
   * last byte, or -1 when the piece goes on. After a cut call again with the rest.
   */
  next(data: Uint8Array): number;
  reset(): void;
  /** No piece is longer. */
  readonly pieceBytesMax: number;
}

const SIZES_BYTES: ReadonlyMap<string, number> = new Map([
  ["128K", 128 << 10],
  ["256K", 256 << 10],
  ["512K", 512 << 10],
  ["1M", 1 << 20],
  ["2M", 2 << 20],
  ["4M", 4 << 20],
  ["8M", 8 << 20],
]);

const OLD_NAMES: ReadonlyMap<string, string> = new Map([
  ["", "FIXED-4M"],
  ["FIXED", "FIXED-4M"],
  ["DYNAMIC", "DYNAMIC-4M-BUZHASH"],
]);

/** A splitter by its name in the repository format; `FIXED`, `DYNAMIC` and empty are old names. Throws `config`. */
export function newSplitter(name: string): Splitter {
  const [, fixed, dynamic] =
    /^(?:FIXED-(\w+)|DYNAMIC-(\w+)-BUZHASH)$/.exec(OLD_NAMES.get(name) ?? name) ?? [];
  const sizeBytes = SIZES_BYTES.get(fixed ?? dynamic ?? "");
  if (sizeBytes === undefined) {
    throw new AppError("config", `Use splitter "${name}": not supported for writing`, {
      hint: "supported: FIXED-<size> and DYNAMIC-<size>-BUZHASH with sizes from 128K to 8M",
    });
  }
  return fixed === undefined ? new BuzhashSplitter(sizeBytes) : new FixedSplitter(sizeBytes);
}

/** Cuts every `pieceBytesMax` bytes. */
export class FixedSplitter implements Splitter {
  readonly pieceBytesMax: number;
  #count = 0;

  constructor(sizeBytes: number) {
    this.pieceBytesMax = sizeBytes;
  }

  next(data: Uint8Array): number {
    const left = this.pieceBytesMax - this.#count;
    if (data.length < left) {
      this.#count += data.length;
      return -1;
    }
    this.#count = 0;
    return left;
  }

  reset(): void {
    this.#count = 0;
  }
}

const WINDOW_BYTES = 64;

/** Cuts where the content says so. `averageBytes` is a power of two. */
export class BuzhashSplitter implements Splitter {
  readonly pieceBytesMax: number;
  readonly #pieceBytesMin: number;
  readonly #mask: number;
  readonly #window = new Uint8Array(WINDOW_BYTES);
  #windowStart = 0;
  #hash = 0;
  #count = 0;

  constructor(averageBytes: number) {
    this.pieceBytesMax = averageBytes * 2;
    this.#pieceBytesMin = averageBytes / 2;
    this.#mask = averageBytes - 1;
  }

  reset(): void {
    this.#window.fill(0);
    this.#windowStart = 0;
    this.#hash = 0;
    this.#count = 0;
  }

  next(data: Uint8Array): number {
    // No cut is possible before the minimum: only the bytes that will still be in the window are worth rolling.
    const skipped = Math.min(Math.max(this.#pieceBytesMin - this.#count - 1, 0), data.length);
    this.#roll(data, Math.max(skipped - WINDOW_BYTES, 0), skipped, 0);
    this.#count += skipped;
    const end = Math.min(data.length, skipped + this.pieceBytesMax - this.#count);
    const stop = this.#roll(data, skipped, end, this.#mask);
    this.#count += stop - skipped;
    if (stop === skipped) return -1; // nothing beyond the minimum was looked at
    const cut = (this.#hash & this.#mask) === 0 || this.#count >= this.pieceBytesMax;
    if (!cut) return -1;
    this.#count = 0;
    return stop;
  }

  /** Rolls data[from..to), stops after a byte that clears the masked bits (mask 0: never); the next index. */
  #roll(data: Uint8Array, from: number, to: number, mask: number): number {
    const window = this.#window;
    let start = this.#windowStart;
    let hash = this.#hash;
    let i = from;
    while (i < to) {
      const entering = data[i] ?? 0;
      const leaving = window[start] ?? 0;
      window[start] = entering;
      start = (start + 1) & (WINDOW_BYTES - 1);
      // The leaving byte was rotated 64 times since it entered, which for 32 bits is not at all.
      hash = ((hash << 1) | (hash >>> 31)) ^ (TABLE[leaving] ?? 0) ^ (TABLE[entering] ?? 0);
      i++;
      if (mask !== 0 && (hash & mask) === 0) break;
    }
    this.#windowStart = start;
    this.#hash = hash;
    return i;
  }
}

/** 256 words: the low halves of the first distinct values of Go's `math/rand` with seed 1. */
const TABLE = Int32Array.from(
  `
    07fcfd52 5f3f164f 6695721d 7b4d7c03 49c6e2d1 0d1d68d8 7916001e 22c4d294
    392907a0 189deb99 f3875d04 95e94627 ba517936 83c471d4 7cb3ad0b a42655d9
    7c4e0b68 d4491d1b 25632186 a9d78d73 169c1121 bb158644 b68e6a3f 759805f5
    2cdf5b8a 57d29245 c5d6d268 6b83d0e2 7674cb74 b068d9db bb9457d8 a15d523b
    794209ff 9da1d7eb 5a25e0cb f840ec4b 36d4ff9b f4a5ee3b 5ad145f4 f6740304
    3f71f8cb 91018d7c fccae224 b186b51f 7d9e8fbc 93f93f33 f63a5b6f 19476c36
    bc897d06 169873f5 724c7af1 581eeb39 2257bb7d 6f269a28 be8e9981 7039374b
    25416fed ded7e411 6678e7aa 244fcd36 56aa6b86 de4561ad 3e99b0a8 bed80a3a
    e58348b0 af63e58d 406aec9d c233f007 a5ead0bd 050143a6 738b6829 3699caf3
    967cd710 06f665a6 25fd3d7f 0fd6e479 26fbf29b 16de4c35 2bf3394b 4af864ba
    1cb9e6c6 41439089 69a39144 c34f182d 421657ff f9fc6568 8b02c917 6c9c64b7
    83d17909 ea3d4ca5 af635d47 7fc78769 be14186f 3539b1ea e9174548 c051e18a
    07b73658 29ec300c a250bf34 a7ed5d97 fe3dea79 b8b352f7 c9b344e9 8e5f0475
    1941e52a 2694763d 6b40eabc 8485d68b 336eacca 4399a363 67149b9c ae10a901
    5a5ffefb 563b26de 6f00f02b 9f06397d 545836c4 31d6416b 12f4128d 752f33ff
    4a305605 0c8dc214 72521a90 8eb3e4a1 83efc6c6 090ec04f c1540864 ec2c8aaa
    70ab53ba 38d3b494 878d4063 a317ae3f 3cb62f07 f360412c 4ffbf3a9 22d554b4
    3f190476 0796a710 f5c353cf 04f59bb7 2d230176 e2d6a9ce 3f1d7427 afd915bb
    b01aa47d cde2c269 7417bf38 1e094f9a 55ece0ea cb94539b 13d346b5 54e0c0c1
    6db30e37 dc02b390 a6e222f5 e2f8c1fe 2e166bdf 67588a74 21898f34 4c330f1d
    19af53ba 70658b94 133c9673 4efeeadd 0f212551 070f0914 6f241c57 f13e41b7
    3be70cb0 f4b6f47f 20f31127 6551cb89 289cbd2c 8946f23d 40a79c3b 03c6d982
    0365790c 0cf52517 0bb131e8 3da5475c 139efcca bcd44eb4 a54af747 b73c32ed
    9f6c47ac e8ba8f22 54043a66 3b0a7f20 b4926431 e17c02d5 8f0d2558 014fbff2
    7f803594 79b76fbe 33fe2656 792c8ee8 6b41292d fdff9c32 82093298 59483870
    b2d5a113 2dd96e5a 5b8e56a9 ebd9dda9 04f9ce92 cb440950 a67e52b1 49f6d261
    92417fc3 1c3b6bd9 b027b7e0 1f765a41 44c9ab40 45d99121 fd7a84af 99b75788
    e3abff4a a88aa67f 736e41cc 9cbcbe5e 7b3ccebc e1b7fa93 315ae6af 9cced2e2
    19ea0f2f a9770722 84a6bfdc 88f03f07 a44a03a4 27a6b885 b580c8ba 018153da
    b648e604 51180278 893a310f 728f5f4c 37f5198b 3cc0ea9b e39d02db 13883142
    ca599392 c12d154e c176163d 5c92e2b8 f9f95ede b802bdfc 8a928585 dca6e10b
    887953e8 48b9e962 e533e9a3 5e0ce6e5 1dba77ae c8214b8a 53b428d7 4cf20a65
  `.trim().split(/\s+/),
  (word) => Number.parseInt(word, 16) | 0,
);
