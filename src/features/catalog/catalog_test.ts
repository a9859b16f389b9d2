/**
 * The catalogue over a repository in memory.
 *
 * @module
 */

import assert from "node:assert/strict";
import { BackupWorld, WAITING } from "../../../tests/support/backup_world.ts";
import type { MemoryRepositoryOptions } from "../../../tests/support/memory_repository.ts";
import { utf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { encodeSnapshot, type Snapshot, snapshotLabels } from "../../codec/kopia/snapshot.ts";
import { runBackup } from "../backup/mod.ts";
import { ObjectWriter } from "../objects/mod.ts";
import { backupTags, type Catalog, getBackup, listBackups, type PartContent } from "./mod.ts";

async function backedUp(options: MemoryRepositoryOptions = {}): Promise<BackupWorld> {
  const world = await BackupWorld.create(options);
  await using session = world.session();
  await runBackup(world.backupDeps(session), world.backupRequest(), WAITING);
  return world;
}

async function list(world: BackupWorld): Promise<Catalog> {
  await using session = world.session();
  return await listBackups(session, { ...WAITING, cluster: "cluster-a" });
}

async function problems(world: BackupWorld): Promise<readonly string[] | undefined> {
  return (await list(world)).backups[0]?.problems;
}

/** Adds a snapshot with the tags of backup `name` whose root is one file. */
async function addSnapshot(
  world: BackupWorld,
  name: string,
  content: PartContent,
  more: { readonly document?: string; readonly incomplete?: string; readonly json?: string } = {},
): Promise<void> {
  await using session = world.session();
  const writer = new ObjectWriter(session, { bytesInFlightMax: 1 << 20 });
  const { objectId, lengthBytes } = await writer.write([utf8(more.document ?? "{}")], WAITING);
  const snapshot: Snapshot = {
    source: { host: "cluster-a", user: "klio", path: "/x" },
    description: "",
    startTimeNs: 1n,
    endTimeNs: 2n,
    incomplete: more.incomplete ?? "",
    root: {
      name: "x",
      kind: "file",
      mode: 0o600,
      sizeBytes: lengthBytes,
      mtimeNs: 1n,
      uid: 0,
      gid: 0,
      objectId,
      summary: undefined,
    },
    tags: backupTags({ name, content }),
    pins: [],
  };
  await session.putManifest({
    labels: snapshotLabels(snapshot),
    json: more.json === undefined ? encodeSnapshot(snapshot) : utf8(more.json),
  }, WAITING);
  await session.flush(WAITING);
}

async function remove(world: BackupWorld, content: PartContent): Promise<void> {
  await using session = world.session();
  for (const { id } of await session.findManifests({ "tag:klio.io/content": content }, WAITING)) {
    await session.removeManifest(id, WAITING);
  }
  await session.flush(WAITING);
}

Deno.test("a complete backup is listed with metadata, size and parts", async () => {
  const { backups, unreadable } = await list(await backedUp());
  assert.deepEqual(unreadable, []);
  const [backup] = backups;
  assert.deepEqual(backup?.problems, []);
  assert.equal(backup?.metadata.startLsn, 0x2000028n);
  assert.deepEqual(backup?.parts.map(({ content }) => content).toSorted(), [
    "controldata",
    "pgdata",
    "tablespace",
  ]);
  assert.ok((backup?.sizeBytes ?? 0) > 300_000 && (backup?.files ?? 0) > 8);
});

Deno.test("a backup without one of its parts is incomplete and says what is missing", async () => {
  for (const part of ["pgdata", "controldata", "tablespace"] as const) {
    const world = await backedUp();
    await remove(world, part);
    assert.deepEqual(await problems(world), [
      part === "tablespace" ? "missing tablespace fast" : `missing ${part}`,
    ]);
  }
});

Deno.test("parts that occur twice, were cut short or are malformed do not make a backup complete", async () => {
  const world = await backedUp();
  await addSnapshot(world, "b1", "pgdata");
  assert.deepEqual(await problems(world), ["2 times pgdata"]);
  await remove(world, "pgdata");
  await addSnapshot(world, "b1", "pgdata", { incomplete: "checkpoint" });
  assert.deepEqual(await problems(world), ["missing pgdata"]);
  await addSnapshot(world, "b1", "pgdata", { json: '{"source":7}' });
  assert.deepEqual(await problems(world), ["missing pgdata"]);
});

Deno.test("parts without a commit record are not a backup", async () => {
  const world = await backedUp();
  await remove(world, "metadata");
  assert.deepEqual(await list(world), { backups: [], unreadable: [] });
});

Deno.test("records that cannot be read are reported beside the good ones", async () => {
  const world = await backedUp();
  await addSnapshot(world, "b2", "metadata", { document: "not json" });
  await addSnapshot(world, "b3", "metadata", { document: '{"name":"b3"}' });
  await addSnapshot(world, "b4", "metadata", { json: "[]" });
  const { backups, unreadable } = await list(world);
  assert.deepEqual(backups.map(({ metadata }) => metadata.name), ["b1"]);
  assert.deepEqual(unreadable.map(({ name }) => name).toSorted(), ["b2", "b3", "b4"]);
  for (const { error } of unreadable) {
    assert.ok(error instanceof AppError && error.kind === "corruption");
  }
  await using session = world.session();
  await assert.rejects(getBackup(session, { ...WAITING, cluster: "cluster-a", name: "b2" }), {
    kind: "corruption",
  });
});

Deno.test("a record under another backup's name, or one whose bytes are gone, is unreadable", async () => {
  const world = await backedUp();
  await using session = world.session();
  const [found] = await session.findManifests({ "tag:klio.io/content": "metadata" }, WAITING);
  const { json } = await session.readManifest(found?.id ?? "", WAITING);
  await session.putManifest({
    labels: { ...found?.labels, type: "snapshot", "tag:klio.io/tag": "b2" },
    json,
  }, WAITING);
  await session.flush(WAITING);
  const { unreadable } = await list(world);
  assert.deepEqual(unreadable.map(({ name }) => name), ["b2"]);
  for (const id of [...world.repository.contents.keys()]) world.repository.contents.delete(id);
  assert.deepEqual((await list(world)).unreadable.map(({ name }) => name).toSorted(), ["b1", "b2"]);
});

Deno.test("two records of one name are ambiguous", async () => {
  const world = await backedUp();
  await using session = world.session();
  const [found] = await session.findManifests({ "tag:klio.io/content": "metadata" }, WAITING);
  const { json } = await session.readManifest(found?.id ?? "", WAITING);
  await session.putManifest({ labels: found?.labels ?? {}, json }, WAITING);
  await session.flush(WAITING);
  assert.deepEqual(await problems(world), ["2 times metadata"]);
});

Deno.test("an outage is an outage and never an incomplete backup", async () => {
  for (const operation of ["findManifests", "readManifest", "readContent"]) {
    let down = false;
    const world = await backedUp({
      onOperation: (now) => {
        if (down && now === operation) throw new AppError("repository", "Down");
      },
    });
    down = true;
    await assert.rejects(list(world), { kind: "repository" }, operation);
  }
});

Deno.test("getBackup() finds one backup and says when there is none", async () => {
  const world = await backedUp();
  await using session = world.session();
  const get = (cluster: string, name: string) => getBackup(session, { ...WAITING, cluster, name });
  assert.equal((await get("cluster-a", "b1")).metadata.name, "b1");
  await assert.rejects(get("cluster-a", "b2"), { kind: "not_found" });
  await assert.rejects(get("cluster-b", "b1"), { kind: "not_found" });
});
