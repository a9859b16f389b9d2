/**
 * What a person wants to recover to, and the pure choice of the base backup for it (reference/cnpg-i.md 6.4): an explicit
 * name wins; a time takes the newest backup that ended at or before it; an LSN the newest that ended at or before it;
 * otherwise the latest one. Nothing is guessed: without a fitting backup the error says what there is.
 *
 * @module
 */

import { AppError } from "../base/failure.ts";
import { formatLsn, type Lsn } from "./lsn.ts";

/** Where recovery ends. */
export type RecoveryTarget =
  /** The end of the archived WAL. */
  | { readonly kind: "latest" }
  /** As soon as the backup is consistent. */
  | { readonly kind: "immediate" }
  /** Microseconds since the epoch. */
  | { readonly kind: "time"; readonly atUs: bigint }
  | { readonly kind: "lsn"; readonly lsn: Lsn };

/** What the choice needs to know of a backup. */
export interface BackupChoice {
  readonly name: string;
  readonly startedAtSeconds: number;
  readonly stoppedAtSeconds: number;
  readonly endLsn: Lsn;
}

/** Chooses among restorable backups. Throws `not_found` with the known names or the earliest possible target. */
export function chooseBackup<T extends BackupChoice>(
  backups: readonly T[],
  wanted: { readonly name: string | undefined; readonly target: RecoveryTarget },
): T {
  const oldestFirst = backups.toSorted((a, b) =>
    a.startedAtSeconds - b.startedAtSeconds || (a.name < b.name ? -1 : 1)
  );
  const { name, target } = wanted;
  if (name !== undefined) return named(oldestFirst, name, target);
  const fitting = oldestFirst.filter((backup) => endsInTime(backup, target)).at(-1);
  if (fitting !== undefined) return fitting;
  const first = oldestFirst[0];
  if (first === undefined) {
    throw new AppError("not_found", "Choose a backup to restore: there is no complete backup", {
      hint: "take one with `klio backup run`",
    });
  }
  throw new AppError(
    "not_found",
    `Choose a backup to recover to ${
      describeTarget(target)
    }: the first backup "${first.name}" ended at ${describeEnd(first, target)}`,
    { hint: "choose a later target" },
  );
}

function named<T extends BackupChoice>(
  backups: readonly T[],
  name: string,
  target: RecoveryTarget,
): T {
  const backup = backups.find((candidate) => candidate.name === name);
  if (backup === undefined) {
    const known = backups.map((candidate) => candidate.name).slice(-KNOWN_NAMES_MAX).join(", ");
    throw new AppError(
      "not_found",
      `Choose backup "${name}": no such complete backup, known are: ${known || "none"}`,
    );
  }
  if (!endsInTime(backup, target)) {
    throw new AppError(
      "usage",
      `Recover backup "${name}" to ${describeTarget(target)}: the backup ended at ${
        describeEnd(backup, target)
      }`,
      { hint: "choose an earlier backup or a later target" },
    );
  }
  return backup;
}

/** How many names an error lists: the newest ones. */
const KNOWN_NAMES_MAX = 20;

const US_PER_SECOND = 1_000_000n;

function endsInTime(backup: BackupChoice, target: RecoveryTarget): boolean {
  switch (target.kind) {
    case "latest":
    case "immediate":
      return true;
    case "time":
      return BigInt(backup.stoppedAtSeconds) * US_PER_SECOND <= target.atUs;
    case "lsn":
      return backup.endLsn <= target.lsn;
  }
}

function describeEnd(backup: BackupChoice, target: RecoveryTarget): string {
  return target.kind === "lsn"
    ? formatLsn(backup.endLsn)
    : formatTargetTime(BigInt(backup.stoppedAtSeconds) * US_PER_SECOND);
}

/** For messages: `2026-01-31 12:00:00.000000+00`, `0/3000028`, `the latest position`. */
export function describeTarget(target: RecoveryTarget): string {
  switch (target.kind) {
    case "latest":
      return "the latest position";
    case "immediate":
      return "the end of the backup";
    case "time":
      return formatTargetTime(target.atUs);
    case "lsn":
      return formatLsn(target.lsn);
  }
}

/** As PostgreSQL reads it in `recovery_target_time`, always UTC. */
export function formatTargetTime(atUs: bigint): string {
  const ms = Number(atUs / 1000n);
  const text = new Date(ms).toISOString().slice(0, 23).replace("T", " ");
  return `${text}${String(atUs % 1000n).padStart(3, "0")}+00`;
}

const TARGET_TIME =
  /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2})?(?:\.(\d{1,9}))?)?\s*(Z|[+-]\d{2}(?::?\d{2})?)?$/i;

/** Microseconds since the epoch of an RFC 3339 or PostgreSQL-like time; without a zone it is UTC. Throws `usage`. */
export function parseTargetTime(text: string): bigint {
  const [, day = "", minutes = "00:00", seconds = ":00", fraction = "", zone = "Z"] =
    TARGET_TIME.exec(text.trim()) ?? [];
  const ms = Date.parse(`${day}T${minutes}${seconds}${isoZone(zone)}`);
  const local = Date.parse(`${day}T${minutes}${seconds}Z`);
  // The round trip refuses what Date merely normalises, as 30 February.
  if (
    Number.isNaN(ms) || ms < 0 ||
    new Date(local).toISOString().slice(0, 19) !== `${day}T${minutes}${seconds}`
  ) {
    throw new AppError(
      "usage",
      `Parse target time "${text}": wanted a time as 2026-01-31T12:00:00Z`,
      {
        hint: "times without a zone are UTC",
      },
    );
  }
  return BigInt(ms) * 1000n + BigInt(fraction.slice(0, 6).padEnd(6, "0"));
}

function isoZone(zone: string): string {
  const [, sign, hours, minutes = "00"] = /^([+-])(\d{2}):?(\d{2})?$/.exec(zone) ?? [];
  return sign === undefined ? "Z" : `${sign}${hours}:${minutes}`;
}
