/**
 * The lines that a restore adds to `postgresql.auto.conf`. The last occurrence of a setting wins and this file wins over all
 * others, so what an earlier recovery left behind is overridden by name: a second target, wherever it stands, would
 * keep PostgreSQL from starting. The targets that are not wanted are reset BEFORE the wanted one is set, because PostgreSQL
 * applies lines in order and refuses to touch another target once one is set.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";
import { formatTargetTime, type RecoveryTarget } from "../../domain/recovery_target.ts";
import { formatLsn } from "../../domain/lsn.ts";
import type { RecoverySettings } from "./types.ts";

const TARGETS = [
  "recovery_target",
  "recovery_target_lsn",
  "recovery_target_name",
  "recovery_target_time",
  "recovery_target_xid",
] as const;

/** Lines to append, each ended by a newline. Throws `usage` for a value that cannot stand in the file. */
export function recoverySettingsLines(
  settings: RecoverySettings,
  target: RecoveryTarget,
  backupName: string,
): string {
  const wanted = targetSetting(target);
  const lines: Array<readonly [string, string]> = [
    ["restore_command", settings.restoreCommand],
    ["recovery_target_timeline", settings.targetTimeline],
    ["recovery_target_action", settings.targetAction],
    ["recovery_target_inclusive", "on"],
    ...TARGETS.filter((name) => name !== wanted?.[0]).map((name) => [name, ""] as const),
    ...(wanted === undefined ? [] : [wanted]),
  ];
  const text = lines.map(([name, value]) => `${name} = ${quote(name, value)}\n`).join("");
  return `# Recovery of backup ${backupName}, written by klio restore\n${text}`;
}

function targetSetting(
  target: RecoveryTarget,
): readonly [typeof TARGETS[number], string] | undefined {
  switch (target.kind) {
    case "latest":
      return undefined;
    case "immediate":
      return ["recovery_target", "immediate"];
    case "time":
      return ["recovery_target_time", formatTargetTime(target.atUs)];
    case "lsn":
      return ["recovery_target_lsn", formatLsn(target.lsn)];
  }
}

function quote(name: string, value: string): string {
  if (/[\0\r\n]/.test(value)) {
    throw new AppError("usage", `Set ${name}: the value has a line break or a zero byte`);
  }
  return `'${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;
}
