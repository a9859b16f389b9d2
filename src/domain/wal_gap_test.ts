import assert from "node:assert/strict";
import { gapAfter, gapOver } from "./wal_gap.ts";

const name = (timeline: number, segment: number) => `0000000${timeline}00000000000000${segment}`;
const FIRST = { start: `${name(1, 20)}.partial`, end: name(1, 25) };
const SECOND = { start: name(1, 40), end: name(2, 50) };
const GAPS = [SECOND, FIRST];

Deno.test("gapOver() tells WAL that will never come from WAL that may", () => {
  assert.equal(gapOver(GAPS, name(1, 20)), FIRST, "the rest of the partial is lost");
  assert.equal(gapOver(GAPS, name(1, 24)), FIRST);
  assert.equal(gapOver(GAPS, name(1, 41)), SECOND);
  assert.equal(gapOver(GAPS, name(2, 49)), SECOND);
  for (const other of [name(1, 19), name(1, 25), name(1, 39), name(2, 50)]) {
    assert.equal(gapOver(GAPS, other), undefined, other);
  }
});

Deno.test("gapAfter() is where recovery from a backup ends", () => {
  assert.equal(gapAfter(GAPS, name(1, 19)), FIRST);
  assert.equal(gapAfter(GAPS, name(1, 20)), FIRST);
  assert.equal(gapAfter(GAPS, name(1, 25)), SECOND);
  assert.equal(gapAfter(GAPS, name(2, 50)), undefined);
});
