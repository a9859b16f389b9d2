/**
 * Restores of a cluster in memory, taken by the real backup feature.
 *
 * @module
 */

import assert from "node:assert/strict";
import {
  BackupWorld,
  controlFile,
  DATA_DIRECTORY,
  putFile,
  treeOf,
  WAITING,
} from "../../../tests/support/backup_world.ts";
import { AppError } from "../../base/failure.ts";
import { fromUtf8, utf8 } from "../../base/bytes.ts";
import { encodeDirectory, summarize } from "../../codec/kopia/directory.ts";
import { decodeSnapshot, encodeSnapshot } from "../../codec/kopia/snapshot.ts";
import { parseTargetTime } from "../../domain/recovery_target.ts";
import { encodeBackupMetadata } from "../../domain/backup.ts";
import { runBackup } from "../backup/mod.ts";
import { getBackup } from "../catalog/mod.ts";
import { ObjectWriter } from "../objects/mod.ts";
import {
  type RestoreProgress,
  type RestoreRequest,
  type RestoreResult,
  runRestore,
} from "./mod.ts";

const RECOVERY = {
  restoreCommand: "klio wal get '%f' \"%p\" \\ end",
  targetAction: "promote",
  targetTimeline: "latest",
} as const;

/** A cluster with one backup of it. */
async function backedUp(): Promise<BackupWorld> {
  const world = await BackupWorld.create();
  await backup(world, "b1");
  return world;
}

async function backup(world: BackupWorld, name: string): Promise<void> {
  await using session = world.session();
  await runBackup(world.backupDeps(session), world.backupRequest({ name }), WAITING);
}

async function restore(
  world: BackupWorld,
  more: Partial<RestoreRequest> = {},
  signal: AbortSignal = WAITING.signal,
): Promise<RestoreResult> {
  await using session = world.session();
  return await runRestore(world.restoreDeps(session), world.restoreRequest(more), { signal });
}

async function text(world: BackupWorld, path: string): Promise<string> {
  return fromUtf8(await world.files.readFile(`/new/data/${path}`));
}

/** The tree without what a backup leaves out or a restore adds. */
async function comparable(world: BackupWorld, root: string): Promise<Map<string, string>> {
  const tree = await treeOf(world.files, root);
  for (const path of [...tree.keys()]) {
    const special =
      /^\/(pg_wal|pg_replslot|log)\/|^\/postmaster\.pid$|^\/(backup_label|tablespace_map)|^\/pg_tblspc\/|^\/PG_16/;
    // Directories that the source does not have; the control file's time is that of the restore.
    const added = /^\/pg_(dynshmem|notify|serial|snapshots|stat_tmp|subtrans)$/;
    if (special.test(path) || added.test(path)) tree.delete(path);
  }
  const control = tree.get("/global/pg_control");
  if (control !== undefined) tree.set("/global/pg_control", control.replace(/ \d+ (?=\w+$)/, " "));
  return tree;
}

Deno.test("a restored cluster is the cluster that was backed up", async () => {
  const world = await backedUp();
  const { metadata, files } = await restore(world);
  assert.equal(metadata.name, "b1");
  assert.ok(files > 5);
  const original = await comparable(world, DATA_DIRECTORY);
  assert.deepEqual(await comparable(world, "/new/data"), original);
  assert.ok(original.size > 12);
  assert.deepEqual(await treeOf(world.files, "/new/fast"), await comparable(world, "/spaces/fast"));
  assert.equal((await world.files.stat("/new/data/base/5")).mode, 0o2770);
});

Deno.test("labels, links and the directories that PostgreSQL needs are there", async () => {
  const world = await backedUp();
  await restore(world);
  assert.match(await text(world, "backup_label"), /^START WAL LOCATION: 0\/2000028/);
  assert.equal(await text(world, "tablespace_map"), "16384 /new/fast\n");
  assert.equal(await world.files.readSymlink("/new/data/pg_tblspc/16384"), "/new/fast");
  for (const name of ["pg_wal", "pg_notify", "pg_subtrans", "pg_replslot", "log"]) {
    assert.deepEqual(await world.files.list(`/new/data/${name}`), [], name);
  }
  const names = await world.files.list("/new/data");
  assert.ok(!names.includes("recovery.signal"), "nobody asked for recovery settings");
  assert.ok(!names.includes("backup_label.old") && !names.includes("postmaster.pid"));
});

Deno.test("without a mapping a tablespace goes to its old place, which must be empty", async () => {
  const world = await backedUp();
  await assert.rejects(restore(world, { tablespacePaths: new Map() }), {
    kind: "conflict",
    message: /"\/spaces\/fast"/,
  });
  await assert.rejects(world.files.stat("/new"), { kind: "not_found" });
  await world.files.removeTree("/spaces/fast");
  await restore(world, { tablespacePaths: new Map() });
  assert.deepEqual(await world.files.list("/spaces/fast"), ["PG_17_202406281"]);
});

Deno.test("bad places for tablespaces are refused before anything is written", async () => {
  const world = await backedUp();
  const places = [["slow", "/x"], ["fast", "relative"], ["fast", "/new/data/x"], ["fast", "/new"], [
    "fast",
    "/a/../b",
  ]] as const;
  for (const place of places) {
    await assert.rejects(restore(world, { tablespacePaths: new Map([place]) }), { kind: "usage" });
  }
  await assert.rejects(world.files.stat("/new"), { kind: "not_found" });
});

Deno.test("a directory that is not empty is refused and not touched", async () => {
  const world = await backedUp();
  await putFile(world.files, "/new/data/precious", "data");
  const before = await treeOf(world.files, "/new");
  await assert.rejects(restore(world), { kind: "conflict" });
  assert.deepEqual(await treeOf(world.files, "/new"), before);
  await world.files.remove("/new/data/precious");
  await restore(world);
});

Deno.test("recovery settings reset every other target, then set the wanted one, after what was there", async () => {
  const world = await backedUp();
  const atUs = parseTargetTime("2026-01-02 03:04:05.678901+01");
  await restore(world, { recovery: RECOVERY, target: { kind: "time", atUs } });
  assert.equal(await text(world, "recovery.signal"), "");
  assert.deepEqual((await text(world, "postgresql.auto.conf")).trim().split("\n"), [
    "recovery_target_xid = '7'",
    "",
    "# Recovery of backup b1, written by klio restore",
    "restore_command = 'klio wal get ''%f'' \"%p\" \\\\ end'",
    "recovery_target_timeline = 'latest'",
    "recovery_target_action = 'promote'",
    "recovery_target_inclusive = 'on'",
    "recovery_target = ''",
    "recovery_target_lsn = ''",
    "recovery_target_name = ''",
    "recovery_target_xid = ''",
    "recovery_target_time = '2026-01-02 02:04:05.678901+00'",
  ]);
});

Deno.test("a line break cannot be smuggled into the recovery settings", async () => {
  const world = await backedUp();
  const recovery = { ...RECOVERY, restoreCommand: "true\nshared_preload_libraries = 'x'" };
  await assert.rejects(restore(world, { recovery }), { kind: "usage" });
  await assert.rejects(world.files.stat("/new"), { kind: "not_found" });
});

Deno.test("the owner of everything is the wanted one", async () => {
  const world = await backedUp();
  await restore(world, { owner: { uid: 26, gid: 27 }, recovery: RECOVERY });
  const visit = async (path: string): Promise<void> => {
    const info = await world.files.stat(path);
    if (info.kind === "symlink") return;
    assert.deepEqual([info.uid, info.gid], [26, 27], path);
    if (info.kind !== "directory") return;
    for (const name of await world.files.list(path)) await visit(`${path}/${name}`);
  };
  await visit("/new/data");
  await visit("/new/fast");
});

Deno.test("a failure in any file operation leaves no control file", async () => {
  const world = await backedUp();
  await restore(world, { recovery: RECOVERY, parallelFiles: 1 });
  let complete = false;
  let failures = 0;
  for (let skip = 0; !complete; skip++) {
    await world.files.removeTree("/new");
    world.files.setFault({ kind: "exhausted", path: "/new", skip, count: 1 });
    const outcome = await restore(world, { recovery: RECOVERY, parallelFiles: 1 })
      .then(() => "done", (error: unknown) => error);
    world.files.clearFault();
    complete = outcome === "done";
    if (complete) break;
    assert.ok(outcome instanceof AppError && outcome.kind === "exhausted", String(outcome));
    failures++;
    const names: readonly string[] = await world.files.list("/new/data/global").catch(() => []);
    if (names.includes("pg_control")) assert.fail(`failure ${skip} left a control file`);
  }
  assert.ok(failures > 100);
});

Deno.test("power lost in any operation leaves no control file, or a whole and durable restore", async () => {
  let finished = false;
  let crashes = 0;
  for (let step = 1; !finished; step += 7) {
    const world = await backedUp();
    const original = await comparable(world, DATA_DIRECTORY);
    world.files.crashAt(world.files.operations + step);
    const outcome = await restore(world, { recovery: RECOVERY, parallelFiles: 2 })
      .then(() => "done", () => "crashed");
    const booted = world.files.afterCrash(step);
    const names: readonly string[] = await booted.list("/new/data/global").catch(() => []);
    finished = outcome === "done";
    crashes += Number(!finished);
    if (!names.includes("pg_control")) {
      assert.ok(!finished);
      continue;
    }
    // The control file is the last thing to become durable: with it everything else is there.
    const tree = await treeOf(booted, "/new/data");
    for (const [path, value] of original) {
      if (path === "/postgresql.auto.conf" || path === "/global/pg_control") continue;
      const [kind, , ...rest] = value.split(" ");
      const survived = (tree.get(path) ?? "").split(" ");
      assert.equal(survived[0], kind, path);
      if (kind === "file") assert.equal(survived.at(-1), rest.at(-1), path);
    }
    for (const path of ["/backup_label", "/tablespace_map", "/recovery.signal", "/pg_wal"]) {
      assert.ok(tree.has(path), path);
    }
  }
  assert.ok(crashes > 10);
});

Deno.test("an abort at any progress report leaves no control file", async () => {
  const world = await backedUp();
  const reports: RestoreProgress[] = [];
  await restore(world, { onProgress: (progress) => reports.push(progress) });
  // The last report is `done`, and those before it come with the control file.
  const last = reports.findIndex(({ phase }) => phase === "finishing");
  for (let stop = 0; stop <= last; stop++) {
    await world.files.removeTree("/new");
    const controller = new AbortController();
    const reason = new AppError("cancelled", "Enough");
    let count = 0;
    const onProgress = () => {
      if (count++ === stop) controller.abort(reason);
    };
    await assert.rejects(restore(world, { onProgress }, controller.signal), reason);
    assert.ok(!(await treeOf(world.files, "/new")).has("/data/global/pg_control"), `stop ${stop}`);
  }
});

Deno.test("progress rises exactly to its totals", async () => {
  const world = await backedUp();
  const seen: RestoreProgress[] = [];
  const result = await restore(world, { onProgress: (progress) => seen.push(progress) });
  const last = seen.at(-1);
  assert.deepEqual(last, {
    phase: "done",
    bytes: result.bytes,
    bytesTotal: result.bytes,
    files: result.files,
    filesTotal: result.files,
  });
});

Deno.test("damaged contents end a restore with corruption and no control file", async () => {
  const world = await backedUp();
  for (const [id, { data }] of [...world.repository.contents]) {
    if (data.length < 8192 || id.startsWith("k")) continue;
    await world.files.removeTree("/new");
    world.repository.replaceContent(id, data.map((byte, i) => i === 77 ? byte ^ 1 : byte));
    await assert.rejects(restore(world), { kind: "corruption" });
    assert.ok(
      !(await treeOf(world.files, "/new").catch(() => new Map())).has("/data/global/pg_control"),
    );
    world.repository.replaceContent(id, data);
  }
});

Deno.test("a backup whose label names another start is refused before anything is written", async () => {
  for (const backupLabel of ["", "START WAL LOCATION: 0/9000028 (file x)\nSTART TIMELINE: 1\n"]) {
    const world = await backedUp();
    await using session = world.session();
    const [found] = await session.findManifests({ "tag:klio.io/content": "metadata" }, WAITING);
    const { json, labels } = await session.readManifest(found?.id ?? "", WAITING);
    const { metadata } = await getBackup(session, { ...WAITING, cluster: "cluster-a", name: "b1" });
    const writer = new ObjectWriter(session, { bytesInFlightMax: 1 << 20 });
    const text = encodeBackupMetadata({ ...metadata, backupLabel });
    const { objectId, lengthBytes } = await writer.write([utf8(text)], WAITING);
    const snapshot = decodeSnapshot(json);
    const file = { ...snapshot.root, kind: "file", sizeBytes: lengthBytes, objectId } as const;
    const root = { ...file, summary: undefined };
    await session.removeManifest(found?.id ?? "", WAITING);
    await session.putManifest({ labels, json: encodeSnapshot({ ...snapshot, root }) }, WAITING);
    await session.flush(WAITING);
    await assert.rejects(restore(world), { kind: "corruption", message: /backup label/ });
    await assert.rejects(world.files.stat("/new"), { kind: "not_found" });
  }
});

Deno.test("names that lead out of the target, or occur twice, are refused", async () => {
  for (const names of [[".."], ["."], [""], ["a/b"], ["/etc"], ["a\0b"], ["x", "x"]]) {
    const world = await backedUp();
    await using session = world.session();
    const writer = new ObjectWriter(session, { bytesInFlightMax: 1 << 20 });
    const content = await writer.write([utf8("evil")], WAITING);
    for (const manifest of [...world.repository.manifests.values()]) {
      if (manifest.labels["tag:klio.io/content"] !== "pgdata") continue;
      const snapshot = decodeSnapshot(manifest.json);
      const file = {
        ...snapshot.root,
        kind: "file",
        sizeBytes: 4,
        objectId: content.objectId,
      } as const;
      const entries = names.map((name) => ({ ...file, name, summary: undefined }));
      const summary = summarize(entries, 0n);
      const directory = encodeDirectory({ entries, summary });
      const { objectId } = await writer.write([directory], { ...WAITING, prefix: "k" });
      const root = { ...snapshot.root, objectId, summary };
      await session.removeManifest(manifest.id, WAITING);
      const json = encodeSnapshot({ ...snapshot, root });
      await session.putManifest({ labels: manifest.labels, json }, WAITING);
    }
    await session.flush(WAITING);
    await assert.rejects(
      restore(world),
      { kind: "corruption", message: /name/ },
      JSON.stringify(names),
    );
  }
});

Deno.test("the backup is chosen by name or target; an incomplete one is refused with what is missing", async () => {
  const world = await backedUp();
  await world.clock.advance(60_000);
  await putFile(world.files, `${DATA_DIRECTORY}/new_file`, "later");
  await backup(world, "b2");
  assert.equal((await restore(world)).metadata.name, "b2");
  const choose = async (more: Partial<RestoreRequest>) => {
    await world.files.removeTree("/new");
    return (await restore(world, more)).metadata.name;
  };
  assert.equal(await choose({ backupName: "b1" }), "b1");
  const atUs = parseTargetTime("2026-01-01T00:00:59Z");
  assert.equal(await choose({ target: { kind: "time", atUs } }), "b1");
  await assert.rejects(choose({ backupName: "b3" }), { kind: "not_found", message: /b1, b2/ });
  await using session = world.session();
  for (const { id, labels } of await session.findManifests({ "tag:klio.io/tag": "b2" }, WAITING)) {
    if (labels["tag:klio.io/content"] === "tablespace") await session.removeManifest(id, WAITING);
  }
  await session.flush(WAITING);
  await assert.rejects(choose({ backupName: "b2" }), {
    kind: "corruption",
    message: /incomplete: missing tablespace fast/,
  });
  assert.equal(await choose({}), "b1");
});

Deno.test("a backup of another tool may hold more than ours: it does not get into the restored cluster", async () => {
  const world = await backedUp();
  // As upstream stores it: a control file in the tree and a left-over ignore file.
  await using session = world.session();
  const writer = new ObjectWriter(session, { bytesInFlightMax: 1 << 20 });
  const control = await writer.write([controlFile()], WAITING);
  for (const manifest of [...world.repository.manifests.values()]) {
    if (manifest.labels["tag:klio.io/content"] !== "pgdata") continue;
    const snapshot = decodeSnapshot(manifest.json);
    const file = {
      ...snapshot.root,
      kind: "file",
      summary: undefined,
      objectId: control.objectId,
    } as const;
    const sizeBytes = control.lengthBytes;
    const inner = [{ ...file, name: "pg_control", sizeBytes }];
    const global = await writer.write(
      [encodeDirectory({ entries: inner, summary: summarize(inner, 0n) })],
      { ...WAITING, prefix: "k" },
    );
    const entries = [
      { ...snapshot.root, name: "global", objectId: global.objectId },
      { ...file, name: ".kopiaignore", sizeBytes },
    ];
    const summary = summarize(entries, 0n);
    const { objectId } = await writer.write([encodeDirectory({ entries, summary })], {
      ...WAITING,
      prefix: "k",
    });
    await session.removeManifest(manifest.id, WAITING);
    const json = encodeSnapshot({ ...snapshot, root: { ...snapshot.root, objectId, summary } });
    await session.putManifest({ labels: manifest.labels, json }, WAITING);
  }
  await session.flush(WAITING);
  const events: string[] = [];
  const write = world.files.writeFileAtomic.bind(world.files);
  world.files.writeFileAtomic = (path, content, permissions) => {
    events.push(path);
    return write(path, content, permissions);
  };
  await restore(world);
  assert.equal(events.at(-1), "/new/data/global/pg_control");
  assert.ok(!(await world.files.list("/new/data")).includes(".kopiaignore"));
  assert.deepEqual(await world.files.list("/new/data/pg_wal"), []);
});
