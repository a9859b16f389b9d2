/**
 * The clock and the random source of the tests keep their own promises.
 *
 * @module
 */

import assert from "node:assert/strict";
import { AppError } from "../../src/base/failure.ts";
import { FakeClock } from "./fake_clock.ts";
import { SeededRandom } from "./seeded_random.ts";

const { signal } = new AbortController();

Deno.test("FakeClock stands still until advanced, by exactly the asked time", async () => {
  const clock = new FakeClock({ startMs: 1_000 });
  assert.deepEqual([clock.nowMs(), clock.monotonicMs()], [1_000, 0]);
  await clock.advance(250);
  assert.deepEqual([clock.nowMs(), clock.monotonicMs()], [1_250, 250]);
  clock.jumpWall(-5_000);
  assert.deepEqual([clock.nowMs(), clock.monotonicMs()], [-3_750, 250]);
});

Deno.test("FakeClock wakes sleepers in order and each at its own time, repeated ones too", async () => {
  const clock = new FakeClock();
  const woken: string[] = [];
  const ticker = async (name: string, everyMs: number, times: number) => {
    for (let i = 0; i < times; i++) {
      await clock.sleep(everyMs, { signal });
      woken.push(`${name}${clock.monotonicMs()}`);
    }
  };
  const all = Promise.all([ticker("a", 30, 3), ticker("b", 50, 2), ticker("c", 30, 1)]);
  await clock.advance(89);
  assert.deepEqual(woken, ["a30", "c30", "b50", "a60"]);
  await clock.advance(11);
  assert.deepEqual(woken.slice(4), ["a90", "b100"]);
  await all;
  assert.equal(clock.sleeping, 0);
});

Deno.test("FakeClock: an abort ends a sleep with the reason, also one that never began", async () => {
  const clock = new FakeClock();
  const controller = new AbortController();
  const reason = new AppError("cancelled", "Stop");
  const sleep = clock.sleep(10, { signal: controller.signal });
  const other = clock.sleep(10, { signal });
  controller.abort(reason);
  await assert.rejects(sleep, reason);
  await assert.rejects(clock.sleep(10, { signal: controller.signal }), reason);
  assert.equal(clock.sleeping, 1);
  await clock.advance(10);
  await other;
});

Deno.test("FakeClock.untilSleeping() resolves when enough are asleep", async () => {
  const clock = new FakeClock();
  const ready = clock.untilSleeping(2);
  const sleeps = [clock.sleep(1, { signal }), clock.sleep(1, { signal })];
  await ready;
  await clock.advance(1);
  await Promise.all(sleeps);
});

Deno.test("SeededRandom: a seed replays, another seed differs, a fork is a stream of its own", () => {
  const draw = (random: SeededRandom) => [random.float(), ...random.bytes(5), random.integer(1, 6)];
  assert.deepEqual(draw(new SeededRandom(7)), draw(new SeededRandom(7)));
  assert.notDeepEqual(draw(new SeededRandom(7)), draw(new SeededRandom(8)));
  const [a, b] = [new SeededRandom(7), new SeededRandom(7)];
  const [forkA, forkB] = [a.fork(), b.fork()];
  forkA.bytes(100);
  assert.deepEqual(draw(a), draw(b));
  assert.notDeepEqual(draw(forkB), draw(b));
});

Deno.test("SeededRandom stays in its ranges and reaches all of them", () => {
  const random = new SeededRandom(1);
  const seen = new Set<number | string>();
  let sum = 0;
  for (let i = 0; i < 10_000; i++) {
    const float = random.float();
    assert.ok(float >= 0 && float < 1);
    sum += float;
    seen.add(random.integer(3, 5)).add(random.pick(["x", "y"]));
  }
  assert.deepEqual([...seen].map(String).sort(), ["3", "4", "5", "x", "y"]);
  assert.ok(Math.abs(sum / 10_000 - 0.5) < 0.02, `mean ${sum / 10_000}`);
  assert.equal(new Set(random.bytes(4_000)).size, 256);
});
