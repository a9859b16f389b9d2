import assert from "node:assert/strict";
import type { LogFields, Logger } from "../base/log.ts";
import { SILENT } from "../base/log.ts";
import { FakeClock } from "../../tests/support/fake_clock.ts";
import { bar, Progress } from "./progress.ts";

Deno.test("bar() is empty, full and in eighths between", () => {
  assert.equal(bar(0, 4), "░░░░");
  assert.equal(bar(1, 4), "████");
  assert.equal(bar(0.5, 4), "██░░");
  assert.equal(bar(0.125, 1), "▏");
  assert.equal(bar(0.5, 1), "▌");
  assert.equal(bar(7, 2), "██");
  assert.equal(bar(-1, 2), "░░");
});

Deno.test("Progress logs each phase at its start and then every ten seconds", async () => {
  const clock = new FakeClock();
  const lines: LogFields[] = [];
  const log: Logger = { ...SILENT, info: (_message, fields = {}) => void lines.push(fields) };
  const progress = new Progress({ clock, log, interactive: false });
  const at = async (ms: number, phase: string, doneBytes: number) => {
    await clock.advance(ms);
    progress.update({ phase, doneBytes, totalBytes: 100 });
  };
  await at(0, "measuring", 0);
  await at(9_000, "measuring", 1);
  await at(1_000, "measuring", 2);
  await at(1, "copying", 3);
  await at(1, "copying", 4);
  progress.done();
  assert.deepEqual(lines.map((l) => [l["phase"], l["done_bytes"], l["elapsed_ms"]]), [
    ["measuring", 0, 0],
    ["measuring", 2, 10_000],
    ["copying", 3, 10_001],
  ]);
});
