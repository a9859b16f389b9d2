import assert from "node:assert/strict";
import { timeline } from "./summary.ts";

Deno.test("timeline() places a letter per event in order, also when they coincide at the end", () => {
  const events = [0, 10, 500, 1000, 1000, 1000].map((atMs) => ({
    atMs,
    label: `event at ${atMs}`,
  }));
  const [axis = "", ...legend] = timeline(events).split("\n");
  assert.equal(axis.replaceAll("─", "").trim(), "ABCDEF");
  assert.ok(axis.trimEnd().endsWith("DEF"), axis);
  assert.equal(axis.length, 2 + 76);
  assert.deepEqual(legend.map((line) => line.trim()[0]), ["A", "B", "C", "D", "E", "F"]);
});
