import assert from "node:assert/strict";
import { isKind } from "../../base/failure.ts";
import { parseLsn, timelineId } from "../../domain/lsn.ts";
import { enterHistory, parseAnswer, proposeStart } from "./start_point.ts";

const SIZE = 1 << 24;
const system = (timeline: number) => ({
  systemId: "7",
  timeline: timelineId(timeline),
  position: parseLsn("0/5000028"),
});
const point = (timeline: number, start: string) => ({
  timeline: timelineId(timeline),
  start: parseLsn(start),
});
const ANCESTORS = [
  { timeline: timelineId(1), switchPoint: parseLsn("0/3000158") },
  { timeline: timelineId(2), switchPoint: parseLsn("0/4000000") },
];

Deno.test("proposeStart() prefers the slot's position to the current one, on its timeline", () => {
  const nothing = { restartLsn: undefined, restartTimeline: undefined };
  assert.equal(proposeStart(system(3), nothing, SIZE), "000000030000000000000005");
  const slot = { restartLsn: parseLsn("0/4000010"), restartTimeline: timelineId(1) };
  assert.equal(proposeStart(system(3), slot, SIZE), "000000010000000000000004");
});

Deno.test("parseAnswer() drops .partial and refuses everything that is no segment", () => {
  const wanted = point(1, "0/3000000");
  assert.deepEqual(parseAnswer("000000010000000000000003", SIZE), wanted);
  assert.deepEqual(parseAnswer("000000010000000000000003.partial", SIZE), wanted);
  for (const answer of ["", "00000002.history", "0000000100000000000001FF", "x"]) {
    assert.throws(() => parseAnswer(answer, SIZE), (error) => isKind(error, "protocol"), answer);
  }
});

Deno.test("enterHistory() keeps an answer inside PostgreSQL's history", () => {
  const keep = (at: ReturnType<typeof point>) =>
    assert.deepEqual(enterHistory(at, system(3), ANCESTORS, SIZE), at);
  keep(point(3, "0/9000000"));
  keep(point(1, "0/3000000"));
  keep(point(2, "0/4000000"));
});

Deno.test("enterHistory() moves an answer from a dead branch to where the histories part", () => {
  const moved = (at: ReturnType<typeof point>) => enterHistory(at, system(3), ANCESTORS, SIZE);
  assert.deepEqual(moved(point(1, "0/4000000")), point(2, "0/3000000"));
  assert.deepEqual(moved(point(2, "0/6000000")), point(3, "0/4000000"));
});

Deno.test("enterHistory() refuses a timeline that PostgreSQL does not know", () => {
  for (const timeline of [4, 7]) {
    assert.throws(
      () => enterHistory(point(timeline, "0/3000000"), system(3), ANCESTORS, SIZE),
      (error) => isKind(error, "source"),
    );
  }
});
