/**
 * Deno 2.9 checks for leaked operations and resources only when asked; `deno.json` asks. This test leaks on purpose.
 *
 * @module
 */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

const CONFIG = fileURLToPath(new URL("../deno.json", import.meta.url));

Deno.test("deno.json turns the sanitizers on: a leaked timer and a leaked file fail a test", async () => {
  const folder = await Deno.makeTempDir({ prefix: "klio-leaks-" });
  try {
    const leaks = [
      `Deno.test("leaks a timer", () => { setTimeout(() => {}, 10_000); });`,
      `Deno.test("leaks a file", async () => { await Deno.open("${CONFIG}"); });`,
      `Deno.test("leaks nothing", () => {});`,
    ];
    await Deno.writeTextFile(`${folder}/leak_test.ts`, leaks.join("\n"));
    const { code, stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["test", "--no-check", "--no-lock", "-A", "--config", CONFIG, `${folder}/leak_test.ts`],
      env: { NO_COLOR: "1" },
      stderr: "null",
    }).output();
    const report = new TextDecoder().decode(stdout);
    assert.equal(code, 1, report);
    assert.match(report, /1 passed \| 2 failed/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
