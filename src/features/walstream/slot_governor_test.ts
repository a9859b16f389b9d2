import assert from "node:assert/strict";
import fc from "fast-check";
import { assessSlot, remember, type SlotSample, WINDOW_MS } from "./slot_governor.ts";

const MIB = 1 << 20;
const GIB = 1 << 30;
const NEVER = { budgetBytes: undefined, release: "never" } as const;
const limits = (budgetBytes: number) => ({ budgetBytes, release: "over_budget" } as const);
const sample = (atMs: number, retainedBytes: number, freeBytes?: number): SlotSample => ({
  atMs,
  retainedBytes,
  freeBytes,
});
/** A sample each ten seconds. */
const history = (...retained: readonly number[]) =>
  retained.reduce<SlotSample[]>((all, r, i) => remember(all, sample(i * 10_000, r)), []);

Deno.test("assessSlot() measures growth and says when the room is gone", () => {
  assert.equal(assessSlot([], NEVER), undefined);
  const growing = history(...Array.from({ length: 13 }, (_, i) => i * 10 * MIB));
  const status = assessSlot(growing, limits(GIB));
  assert.equal(status?.growthBytesPerSecond, MIB);
  assert.equal(status.roomBytes, GIB - 120 * MIB);
  assert.equal(status.fullInMs, (1024 - 120) * 1000);
  assert.equal(status.level, "error", "full within the hour");
  assert.equal(status.releaseDue, false, "never by a forecast");
  const unlimited = assessSlot(growing, NEVER);
  assert.equal(unlimited?.fullInMs, undefined);
  assert.equal(unlimited?.level, "ok");
});

Deno.test("assessSlot() takes the lesser of budget and free space", () => {
  const growing = [sample(0, 0, 5 * GIB), sample(100_000, 100 * MIB, 50 * MIB)];
  assert.equal(assessSlot(growing, limits(GIB))?.fullInMs, 50_000);
  assert.equal(assessSlot(growing, NEVER)?.roomBytes, 50 * MIB);
  assert.equal(assessSlot(growing, limits(120 * MIB))?.roomBytes, 20 * MIB);
});

Deno.test("assessSlot() is not alarmed by bursts and by the ordinary ebb and flow", () => {
  assert.equal(
    assessSlot(history(0, 500 * MIB), limits(2 * GIB))?.level,
    "ok",
    "10 s are no trend",
  );
  const small = Array.from({ length: 13 }, (_, i) => i * MIB);
  assert.equal(assessSlot(history(...small), limits(GIB))?.level, "ok");
  assert.equal(assessSlot(history(500 * MIB, 10 * MIB), limits(GIB))?.growthBytesPerSecond, 0);
});

Deno.test("assessSlot() warns at half of the budget and is loud at four fifths", () => {
  const level = (mib: number) => assessSlot(history(mib * MIB), limits(1000 * MIB))?.level;
  assert.deepEqual([499, 500, 799, 800, 2000].map(level), [
    "ok",
    "warning",
    "warning",
    "error",
    "error",
  ]);
});

Deno.test("assessSlot() gives up on two samples over the budget that do not shrink, and only if told", () => {
  const due = (...mib: readonly number[]) =>
    assessSlot(history(...mib.map((m) => m * MIB)), limits(100 * MIB))?.releaseDue;
  assert.equal(due(101), false);
  assert.equal(due(100, 101), false);
  assert.equal(due(150, 140), false, "it is being worked off");
  assert.equal(due(101, 101), true);
  assert.equal(due(101, 300), true);
  const over = history(101 * MIB, 300 * MIB);
  assert.equal(assessSlot(over, { budgetBytes: 100 * MIB, release: "never" })?.releaseDue, false);
  assert.equal(assessSlot(over, NEVER)?.releaseDue, false);
});

Deno.test("remember() starts anew when the clock goes back or stood still for long", () => {
  const before = history(10 * MIB, 200 * MIB);
  for (const atMs of [10_000, 5, 10_001 + WINDOW_MS]) {
    const after = remember(before, sample(atMs, 300 * MIB));
    assert.deepEqual(after, [sample(atMs, 300 * MIB)]);
    assert.equal(assessSlot(after, limits(MIB))?.releaseDue, false);
  }
  assert.equal(remember(before, sample(20_000, 0)).length, 3);
});

Deno.test("assessSlot(): under any samples all numbers are finite and not negative", () => {
  const one = fc.record({
    atMs: fc.integer({ min: -1_000_000, max: 1e12 }),
    retainedBytes: fc.nat(),
    freeBytes: fc.option(fc.nat(), { nil: undefined }),
  });
  fc.assert(fc.property(fc.array(one, { minLength: 1 }), fc.nat(), (samples, budget) => {
    const status = assessSlot(
      samples.reduce<SlotSample[]>(remember, []),
      { budgetBytes: budget + 1, release: "over_budget" },
    );
    for (const value of [status?.growthBytesPerSecond, status?.roomBytes, status?.fullInMs ?? 0]) {
      assert.ok(value !== undefined && Number.isFinite(value) && value >= 0);
    }
  }));
});
