/**
 * The smoke steps on klio as it runs from sources; `tools/compile.ts` runs the same steps on the binary.
 *
 * @module
 */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { SMOKE_STEPS, versionOf } from "./smoke.ts";

const MAIN = fileURLToPath(new URL("../../main.ts", import.meta.url));

for (const { name, run } of SMOKE_STEPS) {
  Deno.test(`klio from sources: ${name}`, () => run([Deno.execPath(), "run", "-A", MAIN]));
}

Deno.test("versionOf() refuses a program that is not klio", async () => {
  await assert.rejects(versionOf([Deno.execPath()]), assert.AssertionError);
});
