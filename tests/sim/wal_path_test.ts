/**
 * The WAL path under faults, in simulated worlds (`wal_world.ts`): a seed decides everything. Invariants: what was
 * acknowledged survives a power failure and is equal; PostgreSQL is never told more than that, and never less than before;
 * a hole in the archive is recorded, and nothing is recorded when nothing was lost; every byte is what its timeline wrote;
 * after the last fault all is durable within minutes. And the simulation is one that finds bugs: it must find those that
 * are put in on purpose.
 *
 * `KLIO_TEST_DEEP=1` runs ten thousand worlds, `KLIO_TEST_SEED=n` the one world that failed.
 *
 * @module
 */

import assert from "node:assert/strict";

import { describeError } from "../../src/base/failure.ts";
import { CANARIES, runWorld, type WorldReport } from "./wal_world.ts";

const ONLY = Deno.env.get("KLIO_TEST_SEED");
const IS_DEEP = Deno.env.get("KLIO_TEST_DEEP") === "1";
const SEEDS = IS_DEEP ? 10_000 : 300;
/** A bug that takes more worlds than this to be found would live for days in the everyday suite. */
const CANARY_SEEDS_MAX = 100;
/**
 * Worlds that failed once come first: the streamer gave up because another one had recorded the gap (1489, 4712); a gap was
 * recorded twice because the first answer was lost (5099). Whoever changes what a seed draws finds their successors by
 * taking back the fix.
 */
const FAILED_ONCE: readonly number[] = [1489, 4712, 5099];

function story(seed: number, report: WorldReport): string {
  return `${describeError(report.violation)}\nKLIO_TEST_SEED=${seed}\n${report.trace.join("\n")}`;
}

Deno.test("whatever fails, acknowledged WAL survives, holes are recorded, and the stream catches up", async () => {
  const seeds = ONLY === undefined
    ? [...FAILED_ONCE, ...Array.from({ length: SEEDS }, (_, index) => index + 1)]
    : [Number(ONLY)];
  const faults = new Set<string>();
  let losses = 0;
  for (const seed of seeds) {
    const report = await runWorld(seed);
    assert.equal(report.violation, undefined, story(seed, report));
    for (const fault of report.faults) faults.add(fault);
    losses += report.losses;
  }
  if (ONLY !== undefined) return;
  // That the worlds are not idle.
  assert.ok(faults.size >= 19, `only ${[...faults].sort().join(", ")}`);
  assert.ok(losses >= 10, `WAL was lost ${losses} times only`);
});

Deno.test("a seed replays its world to the last line", async () => {
  for (let seed = 1; seed <= 5; seed++) {
    assert.deepEqual(await runWorld(seed), await runWorld(seed));
  }
});

for (const canary of CANARIES) {
  Deno.test(`the simulation finds a system that ${canary}`, async () => {
    for (let seed = 1; seed <= CANARY_SEEDS_MAX; seed++) {
      if ((await runWorld(seed, canary)).violation !== undefined) return;
    }
    assert.fail(`not found within ${CANARY_SEEDS_MAX} worlds`);
  });
}
