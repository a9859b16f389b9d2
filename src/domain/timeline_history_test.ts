import assert from "node:assert/strict";
import { isKind } from "../base/failure.ts";
import { parseLsn, timelineId } from "./lsn.ts";
import { parseTimelineHistory } from "./timeline_history.ts";

Deno.test("parseTimelineHistory() reads ancestors, and skips comments and empty lines", () => {
  const text = "# made by hand\n1\t0/3000158\tno recovery target specified\n\n" +
    "  3\tA/B0000000\tbefore 2026-01-01 00:00:00+00\n";
  assert.deepEqual(parseTimelineHistory(timelineId(4), text), [
    { timeline: 1, switchPoint: parseLsn("0/3000158") },
    { timeline: 3, switchPoint: parseLsn("A/B0000000") },
  ]);
  assert.deepEqual(parseTimelineHistory(timelineId(2), ""), []);
});

Deno.test("parseTimelineHistory() refuses what PostgreSQL would refuse", () => {
  for (const text of ["x", "1", "1\tzz/1", "1 0/1\n1 0/2", "2 0/1\n1 0/2", "4 0/1", "0 0/1"]) {
    assert.throws(
      () => parseTimelineHistory(timelineId(4), text),
      (error) => isKind(error, "corruption"),
      text,
    );
  }
});
