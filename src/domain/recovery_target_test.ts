/**
 * @module
 */

import assert from "node:assert/strict";
import { parseLsn } from "./lsn.ts";
import {
  type BackupChoice,
  chooseBackup,
  describeTarget,
  formatTargetTime,
  parseTargetTime,
  type RecoveryTarget,
} from "./recovery_target.ts";

function backup(name: string, startedAtSeconds: number, endLsn: string): BackupChoice {
  return {
    name,
    startedAtSeconds,
    stoppedAtSeconds: startedAtSeconds + 10,
    endLsn: parseLsn(endLsn),
  };
}

// Unordered on purpose.
const BACKUPS = [
  backup("b2", 200, "0/2000"),
  backup("b1", 100, "0/1000"),
  backup("b3", 300, "0/3000"),
];

function choose(target: RecoveryTarget, name?: string): string {
  return chooseBackup(BACKUPS, { name, target }).name;
}

const atSeconds = (seconds: number): RecoveryTarget => ({
  kind: "time",
  atUs: BigInt(seconds) * 1_000_000n,
});

Deno.test("without a wish the latest backup is chosen, also to stop as soon as it is consistent", () => {
  assert.equal(choose({ kind: "latest" }), "b3");
  assert.equal(choose({ kind: "immediate" }), "b3");
});

Deno.test("a time takes the newest backup that ended at or before it", () => {
  assert.equal(choose(atSeconds(210)), "b2");
  assert.equal(choose({ kind: "time", atUs: 209_999_999n }), "b1");
  assert.equal(choose(atSeconds(1_000_000)), "b3");
});

Deno.test("an LSN takes the newest backup that ended at or before it", () => {
  assert.equal(choose({ kind: "lsn", lsn: parseLsn("0/2000") }), "b2");
  assert.equal(choose({ kind: "lsn", lsn: parseLsn("0/1FFF") }), "b1");
});

Deno.test("a target before the first backup says when that ended", () => {
  assert.throws(() => choose(atSeconds(109)), {
    kind: "not_found",
    message: /first backup "b1" ended at 1970-01-01 00:01:50\.000000\+00/,
  });
  assert.throws(() => choose({ kind: "lsn", lsn: parseLsn("0/FFF") }), {
    kind: "not_found",
    message: /ended at 0\/1000/,
  });
});

Deno.test("a name wins, must exist and must not lie after the target", () => {
  assert.equal(choose({ kind: "latest" }, "b1"), "b1");
  assert.equal(choose(atSeconds(1000), "b1"), "b1");
  assert.throws(() => choose({ kind: "latest" }, "b9"), {
    kind: "not_found",
    message: /b1, b2, b3/,
  });
  assert.throws(() => choose(atSeconds(150), "b2"), { kind: "usage", message: /ended at/ });
  const none = { name: "b1", target: { kind: "latest" } } as const;
  assert.throws(() => chooseBackup([], none), { kind: "not_found", message: /none/ });
});

Deno.test("without any backup the error says so", () => {
  const wish = { name: undefined, target: { kind: "latest" } } as const;
  assert.throws(() => chooseBackup([], wish), { kind: "not_found", message: /no complete backup/ });
});

Deno.test("target times are RFC 3339 or like PostgreSQL's, UTC without a zone, exact to the microsecond", () => {
  const wanted = "2026-01-31 12:00:00.000000+00";
  const same = [
    "2026-01-31T12:00:00Z",
    "2026-01-31 12:00:00",
    "2026-01-31 12:00",
    "2026-01-31T13:00:00+01:00",
    "2026-01-31 07:30:00.000-0430",
    "2026-01-31 14:00:00+02",
    " 2026-01-31 12:00:00z ",
  ];
  for (const text of same) assert.equal(formatTargetTime(parseTargetTime(text)), wanted, text);
  assert.equal(formatTargetTime(parseTargetTime("2026-01-31")), "2026-01-31 00:00:00.000000+00");
  const exact = "2026-01-31 12:00:00.123456+00";
  assert.equal(formatTargetTime(parseTargetTime("2026-01-31T12:00:00.1234569Z")), exact);
  for (
    const bad of [
      "",
      "now",
      "2026-02-30",
      "2026-01-31 24:00:00",
      "12:00",
      "2026-01-31 12",
      "2026-01-31T12:00:00+99:00",
    ]
  ) {
    assert.throws(() => parseTargetTime(bad), { kind: "usage" }, bad);
  }
});

Deno.test("describeTarget() names every kind", () => {
  assert.equal(describeTarget({ kind: "latest" }), "the latest position");
  assert.equal(describeTarget({ kind: "immediate" }), "the end of the backup");
  assert.equal(describeTarget({ kind: "lsn", lsn: parseLsn("A/B") }), "A/B");
  assert.equal(describeTarget(atSeconds(0)), "1970-01-01 00:00:00.000000+00");
});
