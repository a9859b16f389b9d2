/**
 * @module
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { fromUtf8, utf8 } from "../base/bytes.ts";
import { AppError } from "../base/failure.ts";
import {
  type BackupMetadata,
  backupNameAt,
  checkBackupName,
  decodeBackupMetadata,
  encodeBackupMetadata,
} from "./backup.ts";
import { parseBackupLabel } from "./backup_label.ts";
import { lsn, timelineId } from "./lsn.ts";

const METADATA: BackupMetadata = {
  name: "backup-20260101000000",
  clusterName: "cluster-a",
  startLsn: lsn(18446744073709551614n),
  endLsn: lsn(18446744073709551615n),
  startWal: "000000010000000000000002",
  endWal: "000000010000000000000003",
  timeline: timelineId(4294967295),
  segmentSizeBytes: 16777216,
  backupLabel: 'START "x"\n',
  tablespaceMap: "",
  dataDirectory: "/pg/data",
  tablespaces: [{ name: "fast", oid: "16384", path: "/spaces/fast" }],
  startedAtSeconds: 1767225600,
  stoppedAtSeconds: 1767225601,
  systemId: "7300000000000000001",
  pgVersion: 170002,
};

const DOCUMENT = '{"name":"backup-20260101000000","clusterName":"cluster-a",' +
  '"startLsn":18446744073709551614,"endLsn":18446744073709551615,' +
  '"startWal":"000000010000000000000002","endWal":"000000010000000000000003",' +
  '"tli":4294967295,"segmentSize":16777216,"backupLabel":"START \\"x\\"\\n","tablespaceMap":"",' +
  '"pgData":"/pg/data",' +
  '"tablespaces":[{"name":"fast","oid":"16384","path":"/spaces/fast","annotations":null}],' +
  '"startedAt":1767225600,"stoppedAt":1767225601,' +
  '"systemId":"7300000000000000001","pgVersion":170002}';

Deno.test("the metadata document keeps upstream's fields and exact 64-bit positions", () => {
  assert.equal(encodeBackupMetadata(METADATA), DOCUMENT);
  assert.deepEqual(decodeBackupMetadata(utf8(DOCUMENT)), METADATA);
});

Deno.test("a document of upstream has no tablespaces field and none of ours", () => {
  const upstream = { ...METADATA, tablespaces: [], systemId: undefined, pgVersion: undefined };
  const text = encodeBackupMetadata(upstream);
  assert.ok(!/tablespaces|systemId|pgVersion/.test(text));
  assert.deepEqual(decodeBackupMetadata(utf8(text)), upstream);
});

Deno.test("positions of every size survive the document", () => {
  fc.assert(fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (value) => {
    const text = encodeBackupMetadata({ ...METADATA, startLsn: lsn(value) });
    assert.equal(decodeBackupMetadata(utf8(text)).startLsn, value);
  }));
});

Deno.test("a damaged document is corruption and nothing else", () => {
  const broken: ReadonlyArray<readonly [string, string]> = [
    ["18446744073709551615", "18446744073709551616"],
    ["18446744073709551615", "-1"],
    ["18446744073709551615", "1.5"],
    ["18446744073709551615", '"1"'],
    ['"tli":4294967295', '"tli":0'],
    ['"tli":4294967295', '"tli":4294967296'],
    ['"name":"backup-20260101000000"', '"name":null'],
    ['"tablespaces":[', '"tablespaces":[7,'],
    ['"startedAt":1767225600', '"startedAt":1e400'],
  ];
  for (const [from, to] of broken) {
    assert.ok(DOCUMENT.includes(from));
    assert.throws(() => decodeBackupMetadata(utf8(DOCUMENT.replace(from, to))), {
      kind: "corruption",
    }, to);
  }
  const deep = utf8("[".repeat(100_000));
  assert.throws(() => decodeBackupMetadata(deep), { kind: "corruption" });
  fc.assert(fc.property(fc.nat(DOCUMENT.length - 1), fc.nat(255), (at, byte) => {
    const bytes = utf8(DOCUMENT);
    bytes[at] = byte;
    try {
      decodeBackupMetadata(bytes);
    } catch (error) {
      assert.ok(error instanceof AppError && error.kind === "corruption", fromUtf8(bytes));
    }
  }));
});

Deno.test("backup names are made from the time in UTC and are checked", () => {
  assert.equal(backupNameAt(Date.UTC(2026, 11, 31, 23, 59, 59, 999)), "backup-20261231235959");
  checkBackupName(backupNameAt(0));
  for (const name of ["", ".", "..", "a/b", "a b", "é", "-x", "x".repeat(129)]) {
    assert.throws(() => checkBackupName(name), { kind: "usage" }, name);
  }
});

Deno.test("parseBackupLabel() reads the labels of PostgreSQL 15 to 18 and refuses others", () => {
  const label = (position: string, timeline: string) =>
    `START WAL LOCATION: ${position} (file 000000020000000000000002)\n` +
    "CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: standby\n" +
    `START TIME: 2026-01-01 00:00:00 UTC\nLABEL: START TIMELINE: 9\nSTART TIMELINE: ${timeline}\n`;
  assert.deepEqual(parseBackupLabel(label("A/2000028", "2")), {
    startLsn: 0xa02000028n,
    timeline: 2,
  });
  assert.equal(parseBackupLabel(label("0/02000028", "2")).startLsn, 0x2000028n);
  for (const bad of ["", label("0/2000028", "0"), label("0/2000028", "x"), label("zero", "1")]) {
    assert.throws(() => parseBackupLabel(bad), { kind: "protocol" });
  }
});
