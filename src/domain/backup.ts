/**
 * A base backup: its name and its metadata document, which is the commit record of the backup (reference/klio.md 5.5).
 * The document stays readable by upstream clients: their fields keep names, types and order; ours (`systemId`,
 * `pgVersion`) come last and may be absent in documents of others. LSNs are plain JSON integers up to 2^64 - 1, beyond
 * what a JavaScript number holds, and therefore bigint on both ways.
 *
 * @module
 */

import { AppError } from "../base/failure.ts";
import { JsonReader } from "../base/json_reader.ts";
import { type Lsn, lsn, type TimelineId, timelineId } from "./lsn.ts";

/** A tablespace outside the data directory, as the backup saw it. */
export interface BackupTablespace {
  readonly name: string;
  /** Decimal. */
  readonly oid: string;
  /** Absolute path on the source. */
  readonly path: string;
}

/** The metadata document. */
export interface BackupMetadata {
  readonly name: string;
  readonly clusterName: string;
  readonly startLsn: Lsn;
  readonly endLsn: Lsn;
  /** First and last WAL file that recovery from this backup needs. */
  readonly startWal: string;
  readonly endWal: string;
  readonly timeline: TimelineId;
  readonly segmentSizeBytes: number;
  /** Content of `backup_label`, from `pg_backup_stop`. */
  readonly backupLabel: string;
  /** Content of `tablespace_map`; empty without tablespaces. */
  readonly tablespaceMap: string;
  readonly dataDirectory: string;
  readonly tablespaces: readonly BackupTablespace[];
  readonly startedAtSeconds: number;
  /** Rounded up, so that a recovery target at or after it is never before the true end. */
  readonly stoppedAtSeconds: number;
  /** PostgreSQL's system identifier, decimal; undefined in documents of upstream. */
  readonly systemId: string | undefined;
  /** For example 170002; undefined in documents of upstream. */
  readonly pgVersion: number | undefined;
}

/** `backup-YYYYMMDDHHMMSS`, UTC. */
export function backupNameAt(nowMs: number): string {
  return `backup-${new Date(nowMs).toISOString().slice(0, 19).replace(/\D/g, "")}`;
}

/** Throws `usage` unless `name` can name a backup: it becomes a label, a log field and part of a file name. */
export function checkBackupName(name: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name)) {
    throw new AppError(
      "usage",
      `Use backup name "${name}": wanted up to 128 ASCII letters, digits, ".", "_" or "-", starting with a letter or digit`,
    );
  }
}

/** The document as JSON text. */
export function encodeBackupMetadata(metadata: BackupMetadata): string {
  const members: string[] = [];
  const add = (key: string, json: string) => members.push(`${JSON.stringify(key)}:${json}`);
  const { tablespaces } = metadata;
  add("name", JSON.stringify(metadata.name));
  add("clusterName", JSON.stringify(metadata.clusterName));
  add("startLsn", String(metadata.startLsn));
  add("endLsn", String(metadata.endLsn));
  add("startWal", JSON.stringify(metadata.startWal));
  add("endWal", JSON.stringify(metadata.endWal));
  add("tli", String(metadata.timeline));
  add("segmentSize", String(metadata.segmentSizeBytes));
  add("backupLabel", JSON.stringify(metadata.backupLabel));
  add("tablespaceMap", JSON.stringify(metadata.tablespaceMap));
  add("pgData", JSON.stringify(metadata.dataDirectory));
  if (tablespaces.length > 0) {
    const list = tablespaces.map(({ name, oid, path }) => ({ name, oid, path, annotations: null }));
    add("tablespaces", JSON.stringify(list));
  }
  add("startedAt", String(metadata.startedAtSeconds));
  add("stoppedAt", String(metadata.stoppedAtSeconds));
  if (metadata.systemId !== undefined) add("systemId", JSON.stringify(metadata.systemId));
  if (metadata.pgVersion !== undefined) add("pgVersion", String(metadata.pgVersion));
  return `{${members.join(",")}}`;
}

/** Reads a document, upstream's included. Throws `corruption`. */
export function decodeBackupMetadata(document: Uint8Array): BackupMetadata {
  const what = "Read the metadata of a backup";
  const json = JsonReader.parse(document, { what, kind: "corruption", wideIntegers: true });
  const position = (key: string): Lsn => {
    const value = json.wideInteger(key);
    if (value < 0n || value >= 1n << 64n) json.fail(key, "an unsigned 64-bit integer");
    return lsn(value);
  };
  const timeline = json.integer("tli");
  if (timeline < 1 || timeline > 0xffff_ffff) json.fail("tli", "a timeline id");
  return {
    name: json.string("name"),
    clusterName: json.string("clusterName"),
    startLsn: position("startLsn"),
    endLsn: position("endLsn"),
    startWal: json.string("startWal"),
    endWal: json.string("endWal"),
    timeline: timelineId(timeline),
    segmentSizeBytes: json.integer("segmentSize"),
    backupLabel: json.string("backupLabel"),
    tablespaceMap: json.string("tablespaceMap", ""),
    dataDirectory: json.string("pgData"),
    tablespaces: json.objects("tablespaces").map((item) => ({
      name: item.string("name"),
      oid: item.string("oid"),
      path: item.string("path"),
    })),
    startedAtSeconds: json.integer("startedAt"),
    stoppedAtSeconds: json.integer("stoppedAt"),
    systemId: json.has("systemId") ? json.string("systemId") : undefined,
    pgVersion: json.has("pgVersion") ? json.integer("pgVersion") : undefined,
  };
}
