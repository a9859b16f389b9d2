/**
 * Runs decoders on inputs that they must refuse, or take, in good order: only failures of the documented kinds, in bounded
 * time, with bounded output. `KLIO_TEST_SEED` replays a run, `KLIO_TEST_DEEP=1` makes it minutes instead of seconds.
 *
 * @module
 */

import type { Bytes } from "../../src/base/bytes.ts";
import { AppError, type FailureKind } from "../../src/base/failure.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { garbage, mutate } from "./mutate.ts";

/** A decoder under test. */
export interface Target {
  readonly name: string;
  readonly kinds: readonly FailureKind[];
  /** Valid inputs; the decoder must take each of them. */
  readonly samples: readonly [Bytes, ...Bytes[]];
  /** Decodes; how many bytes, about, the result holds besides the input. Throws the decoder's failure. */
  readonly decode: (input: Bytes, random: SeededRandom) => number;
  /** Results may be larger than the input by this much; absent means proportional, see {@link outputBytesMax}. */
  readonly outputBytesMax?: number;
  /** One input costs that many times the usual: fewer are tried. */
  readonly cost?: number;
}

/** True for the long run. */
export const DEEP = Deno.env.get("KLIO_TEST_DEEP") === "1";

/** Inputs per target of cost 1. */
const ROUNDS = DEEP ? 40_000 : 1000;
/** Far above what any input needs, far below what a person would call a hang. */
const INPUT_MS_MAX = 2000;
const SHOWN_BYTES_MAX = 2048;
/** A decoded value costs some memory per field and element, however short it is. */
const OUTPUT_BYTES_PER_INPUT_BYTE = 64;

/** First seed of this run; printed once. */
export function baseSeed(): number {
  const given = Deno.env.get("KLIO_TEST_SEED");
  const seed = given === undefined ? crypto.getRandomValues(new Uint32Array(1))[0] : Number(given);
  return (seed ?? 0) >>> 0;
}

/** Rounds for something of that cost. */
export function roundsOf(cost = 1): number {
  return Math.max(10, Math.floor(ROUNDS / cost));
}

/** The seed of round `round` of a run. */
export function seedOf(base: number, round: number): number {
  return (base + Math.imul(round, 0x9e37_79b1)) >>> 0;
}

/** Lets other tasks of the process live during a long run. */
export async function breathe(round: number): Promise<void> {
  if (round % 1000 === 999) await new Promise((resolve) => setTimeout(resolve));
}

/** Tries all rounds of a target. Throws with seed and input when one goes wrong. */
export async function fuzz(target: Target, base: number): Promise<void> {
  for (const sample of target.samples) takeSample(target, sample, base);
  for (let round = 0; round < roundsOf(target.cost); round++) {
    const seed = seedOf(base, round);
    const random = new SeededRandom(seed);
    check(target, inputOf(target, random), seed);
    await breathe(round);
  }
}

/** A decoder that refuses everything would pass every other check. */
function takeSample(target: Target, sample: Bytes, seed: number): void {
  try {
    target.decode(sample, new SeededRandom(seed));
  } catch (cause) {
    throw new Error(`${target.name} refuses its sample ${sample.subarray(0, 200).toHex()}`, {
      cause,
    });
  }
}

function inputOf(target: Target, random: SeededRandom): Bytes {
  if (random.integer(0, 9) === 0) return garbage(random);
  return mutate(random, random.pick(target.samples), random.pick(target.samples));
}

/** One input: the decoder takes it or refuses it in good order. */
function check(target: Target, input: Bytes, seed: number): void {
  const started = performance.now();
  const what = () =>
    `${target.name}, seed ${seed}, input of ${input.length} bytes ${
      input.subarray(0, SHOWN_BYTES_MAX).toHex()
    }`;
  let output = 0;
  try {
    output = target.decode(input, new SeededRandom(seed));
  } catch (error) {
    if (!(error instanceof AppError) || !target.kinds.includes(error.kind)) {
      throw new Error(
        `${what()}: wanted a failure of kind ${target.kinds.join(" or ")}, got ${
          error instanceof AppError ? error.kind : "another error"
        }`,
        { cause: error },
      );
    }
  }
  const outputBytesMax = target.outputBytesMax ?? 1024 + input.length * OUTPUT_BYTES_PER_INPUT_BYTE;
  if (output > outputBytesMax) throw new Error(`${what()}: the result has ${output} bytes`);
  const tookMs = performance.now() - started;
  if (tookMs > INPUT_MS_MAX) throw new Error(`${what()}: it took ${Math.round(tookMs)} ms`);
}
