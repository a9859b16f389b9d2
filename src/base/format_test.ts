import assert from "node:assert/strict";
import { formatBytes, formatCount, formatDuration, formatRate } from "./format.ts";

Deno.test("formatBytes() uses binary units with one digit below a hundred", () => {
  assert.deepEqual([0, 512, 1024, 1536, 104857600, 5 * 2 ** 40].map(formatBytes), [
    "0 B",
    "512 B",
    "1.0 KiB",
    "1.5 KiB",
    "100 MiB",
    "5.0 TiB",
  ]);
});

Deno.test("formatDuration() changes units where a person would", () => {
  assert.deepEqual([0, 85.4, 3210, 65_000, 3_600_000 + 3 * 60_000].map(formatDuration), [
    "0 ms",
    "85 ms",
    "3.2 s",
    "1 min 05 s",
    "1 h 03 min",
  ]);
});

Deno.test("formatRate() and formatCount()", () => {
  assert.equal(formatRate(10 * 2 ** 20, 1000), "10.0 MiB/s");
  assert.equal(formatRate(1, 0), "0 B/s");
  assert.deepEqual([0, 999, 1000, 1234567].map(formatCount), ["0", "999", "1,000", "1,234,567"]);
});
