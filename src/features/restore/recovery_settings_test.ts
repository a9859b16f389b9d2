/**
 * @module
 */

import assert from "node:assert/strict";
import { parseLsn } from "../../domain/lsn.ts";
import type { RecoveryTarget } from "../../domain/recovery_target.ts";
import { recoverySettingsLines } from "./recovery_settings.ts";

const SETTINGS = { restoreCommand: "true", targetAction: "pause", targetTimeline: "3" } as const;

/** The lines about targets, in order. */
function targets(target: RecoveryTarget): string[] {
  const lines = recoverySettingsLines(SETTINGS, target, "b1").split("\n");
  return lines.filter((line) => /^recovery_target(_(lsn|name|time|xid))? =/.test(line));
}

Deno.test("the wanted target comes after all others were reset", () => {
  assert.deepEqual(targets({ kind: "immediate" }), [
    "recovery_target_lsn = ''",
    "recovery_target_name = ''",
    "recovery_target_time = ''",
    "recovery_target_xid = ''",
    "recovery_target = 'immediate'",
  ]);
  assert.equal(
    targets({ kind: "lsn", lsn: parseLsn("A/1") }).at(-1),
    "recovery_target_lsn = 'A/1'",
  );
  assert.deepEqual(targets({ kind: "latest" }).filter((line) => !line.endsWith("= ''")), []);
  assert.equal(targets({ kind: "latest" }).length, 5);
});

Deno.test("timeline and action are those asked for", () => {
  const text = recoverySettingsLines(SETTINGS, { kind: "latest" }, "b1");
  assert.match(text, /^recovery_target_timeline = '3'$/m);
  assert.match(text, /^recovery_target_action = 'pause'$/m);
});
