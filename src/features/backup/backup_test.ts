/**
 * Base backups of a cluster in memory.
 *
 * @module
 */

import assert from "node:assert/strict";
import {
  BackupWorld,
  controlFile,
  DATA_DIRECTORY,
  putFile,
  WAITING,
} from "../../../tests/support/backup_world.ts";
import { AppError } from "../../base/failure.ts";
import { decodeSnapshot } from "../../codec/kopia/snapshot.ts";
import { decodeDirectory, type DirectoryEntry } from "../../codec/kopia/directory.ts";
import { parseLsn } from "../../domain/lsn.ts";
import { listBackups } from "../catalog/mod.ts";
import { ObjectReader } from "../objects/mod.ts";
import { type BackupProgress, type BackupRequest, type BackupResult, runBackup } from "./mod.ts";

async function backup(
  world: BackupWorld,
  more: Partial<BackupRequest> = {},
  signal: AbortSignal = WAITING.signal,
): Promise<BackupResult> {
  await using session = world.session();
  return await runBackup(world.backupDeps(session), world.backupRequest(more), { signal });
}

/** Names of the backups that a restore could choose. */
async function listed(world: BackupWorld): Promise<string[]> {
  await using session = world.session();
  const { backups, unreadable } = await listBackups(session, { ...WAITING, cluster: "cluster-a" });
  assert.deepEqual(unreadable, []);
  return backups.map(({ metadata, problems }) => [metadata.name, ...problems].join(": "));
}

/** The entries of one part by path. */
async function stored(world: BackupWorld, content: string): Promise<Map<string, DirectoryEntry>> {
  await using session = world.session();
  const reader = new ObjectReader(session, { bytesAheadMax: 1 });
  const entries = new Map<string, DirectoryEntry>();
  const visit = async (entry: DirectoryEntry, path: string): Promise<void> => {
    entries.set(path, entry);
    if (entry.kind !== "directory") return;
    const bytes = await reader.readAll(entry.objectId, { ...WAITING, sizeBytesMax: 1 << 20 });
    for (const child of decodeDirectory(bytes).entries) {
      await visit(child, path === "" ? child.name : `${path}/${child.name}`);
    }
  };
  const labels = { type: "snapshot", "tag:klio.io/content": content };
  for (const { id } of await session.findManifests(labels, WAITING)) {
    await visit(decodeSnapshot((await session.readManifest(id, WAITING)).json).root, "");
  }
  return entries;
}

Deno.test("a backup calls PostgreSQL in order, stores every part and is listed as complete", async () => {
  const world = await BackupWorld.create();
  const { metadata, statistics } = await backup(world);
  assert.deepEqual(world.source.calls, [
    "connect",
    "start b1 fast",
    "tablespaces",
    "stop",
    "close",
  ]);
  assert.deepEqual(await listed(world), ["b1"]);
  assert.equal(metadata.startWal, "000000010000000000000002");
  assert.equal(metadata.endWal, "000000010000000000000002");
  assert.equal(metadata.systemId, world.source.systemId);
  assert.deepEqual(metadata.tablespaces, [{ name: "fast", oid: "16384", path: "/spaces/fast" }]);
  assert.equal(statistics.vanishedFiles, 0);
  assert.ok(statistics.newBytes > statistics.bytes, "with metadata");
  assert.deepEqual(world.ranges.map(({ startWal, endWal }) => [startWal, endWal]), [
    [metadata.startWal, metadata.endWal],
  ]);
  const sources = [...world.repository.manifests.values()].map((
    { labels },
  ) => [labels.path, labels["tag:klio.io/content"], labels["tag:klio.io/tablespaceName"]]);
  assert.deepEqual(sources.toSorted(), [
    ["/pg/data", "pgdata", undefined],
    ["/pg/data/global/pg_control", "controldata", undefined],
    ["/pg/data_meta", "metadata", undefined],
    ["/spaces/fast", "tablespace", "fast"],
  ]);
});

Deno.test("the parts are durable before the commit record is written", async () => {
  const order: string[] = [];
  const world = await BackupWorld.create({
    onOperation: (operation) => {
      if (operation === "putManifest" || operation === "flush") order.push(operation);
    },
  });
  await backup(world);
  const part = "putManifest";
  assert.deepEqual(order, [part, part, part, "flush", part, "flush"]);
});

Deno.test("a second backup of the same files sends next to nothing", async () => {
  const world = await BackupWorld.create();
  await backup(world);
  const { statistics } = await backup(world, { name: "b2" });
  assert.equal(statistics.deduplicatedBytes, 300_000 - 300_000 % 131_072 + 131_072);
  assert.deepEqual(await listed(world), ["b1", "b2"]);
});

Deno.test("a backup leaves out what pg_basebackup leaves out and keeps the directories", async () => {
  const world = await BackupWorld.create();
  const put = (path: string) => putFile(world.files, `${DATA_DIRECTORY}/${path}`, path);
  const kept = [
    "base/5/16384_init", // of an unlogged relation: only this
    "base/5/16390", // its free space map looks like a fork, not like an init fork
    "base/5/16390_fsm",
    "base/5/16390.1",
    "base/5/t_not_temporary",
    "global/16384_init",
    "global/16384",
    "pg_xact/16384_init",
    "base/postmaster.pid",
    "postgresql.conf",
  ];
  const gone = [
    "base/5/16384",
    "base/5/16384.1",
    "base/5/16384_vm",
    "base/5/t3_16400",
    "base/5/t3_16400_fsm.2",
    "base/pgsql_tmp/pgsql_tmp1.0",
    "base/5/pg_internal.init",
    "global/pg_internal.init.123",
    "global/pg_control",
    "backup_manifest",
    "backup_label",
    "recovery.signal",
    "standby.signal",
    "tablespace_map",
    "postmaster.opts",
    "pg_subtrans/0000",
    "pg_stat_tmp/x",
  ];
  for (const path of [...kept, ...gone]) {
    if (path !== "global/pg_control") await put(path);
  }
  await world.files.removeTree(`${DATA_DIRECTORY}/pg_wal`);
  await world.files.makeSymlink("/wal/pg_wal", `${DATA_DIRECTORY}/pg_wal`);
  await backup(world);
  const entries = await stored(world, "pgdata");
  for (const path of kept) assert.ok(entries.has(path), `${path} is stored`);
  for (const path of gone) assert.ok(!entries.has(path), `${path} is left out`);
  for (const path of ["pg_wal", "pg_replslot", "pg_subtrans", "pg_stat_tmp", "log"]) {
    assert.equal(entries.get(path)?.kind, "directory", path);
    assert.ok(
      ![...entries.keys()].some((other) => other.startsWith(`${path}/`)),
      `${path} is empty`,
    );
  }
  assert.equal(entries.get("pg_tblspc/16384")?.kind, "symlink");
  assert.equal(entries.get("base/5")?.mode, 0o2770);
  const space = await stored(world, "tablespace");
  assert.deepEqual([...space.keys()], [
    "",
    "PG_17_202406281",
    "PG_17_202406281/5",
    "PG_17_202406281/5/16400",
  ]);
});

Deno.test("files that vanish, shrink and grow while they are read are normal", async () => {
  const world = await BackupWorld.create();
  const { files } = world;
  const base = `${DATA_DIRECTORY}/base/5`;
  const content = new Uint8Array(3 << 20).fill(9);
  for (const name of ["growing", "shrinking", "vanishing"]) {
    await putFile(files, `${base}/${name}`, content);
  }
  await putFile(files, `${DATA_DIRECTORY}/base/6/gone`, "dropped database");
  const open = files.open.bind(files);
  files.open = async (path, mode, permissions) => {
    if (mode === "read" && path === `${base}/vanishing`) await files.remove(path);
    if (mode === "read" && path === `${base}/1259`) {
      await files.removeTree(`${DATA_DIRECTORY}/base/6`);
    }
    const handle = await open(path, mode, permissions);
    if (mode !== "read" || !/growing|shrinking/.test(path)) return handle;
    const read = handle.read.bind(handle);
    handle.read = async (buffer, position) => {
      const count = await read(buffer, position);
      await using other = await open(path, "update");
      if (path.endsWith("growing")) await other.write(content, await other.size());
      else await other.truncate(1 << 20);
      return count;
    };
    return handle;
  };
  const { statistics } = await backup(world);
  const entries = await stored(world, "pgdata");
  assert.equal(entries.get("base/5/growing")?.sizeBytes, 3 << 20);
  assert.equal(entries.get("base/5/shrinking")?.sizeBytes, 1 << 20);
  assert.ok(!entries.has("base/5/vanishing") && !entries.has("base/6"));
  assert.equal(statistics.vanishedFiles, 2);
});

Deno.test("any other failure to read a file ends the backup, closes the session and lists nothing", async () => {
  const world = await BackupWorld.create();
  world.files.setFault({ kind: "permission", operations: ["open"], path: "base/5/1259" });
  await assert.rejects(backup(world), { kind: "permission" });
  assert.equal(world.source.calls.at(-1), "close");
  assert.ok(!world.source.calls.includes("stop"));
  assert.deepEqual(await listed(world), []);
});

Deno.test("an abort or a failure before any call of PostgreSQL leaves no backup", async () => {
  for (const call of ["connect", "start b1 fast", "tablespaces", "stop"]) {
    for (const how of ["abort", "fail"]) {
      const world = await BackupWorld.create();
      const controller = new AbortController();
      const reason = new AppError("source", `${how} at ${call}`);
      world.source.before = (now) => {
        if (now !== call) return;
        if (how === "fail") throw reason;
        controller.abort(reason);
      };
      await assert.rejects(backup(world, {}, controller.signal), reason);
      if (call !== "connect") assert.equal(world.source.calls.at(-1), "close", `${how} at ${call}`);
      assert.deepEqual(await listed(world), [], `${how} at ${call}`);
    }
  }
});

Deno.test("a failure in any operation of the repository leaves either no backup or a complete one", async () => {
  let sawCommitted = false;
  for (let fatal = 1;; fatal++) {
    let count = 0;
    let failing = true;
    const reason = new AppError("repository", "The repository is gone");
    const world = await BackupWorld.create({
      onOperation: () => {
        if (failing && ++count >= fatal) throw reason;
      },
    });
    const outcome = await backup(world, { parallelFiles: 1 }).then(
      () => "done",
      (error: unknown) => error,
    );
    failing = false;
    const names = await listed(world);
    if (outcome === "done") {
      assert.deepEqual(names, ["b1"]);
      sawCommitted = true;
      break;
    }
    assert.equal(outcome, reason);
    assert.deepEqual(names, [], `failure of operation ${fatal}`);
    assert.equal(world.source.calls.at(-1), fatal === 1 ? undefined : "close");
  }
  assert.ok(sawCommitted);
});

Deno.test("an abort in any operation of the repository or at any progress leaves no backup", async () => {
  for (const where of ["operation", "progress"]) {
    let committed = false;
    for (let stop = 1; !committed; stop += 3) {
      const controller = new AbortController();
      const reason = new AppError("cancelled", "Enough");
      let count = 0;
      const step = (now: string) => {
        if (now === where && ++count === stop) controller.abort(reason);
      };
      const world = await BackupWorld.create({ onOperation: () => step("operation") });
      const onProgress = () => step("progress");
      const outcome = await backup(world, { onProgress }, controller.signal)
        .then(() => "done", (error: unknown) => error);
      const names = await listed(world);
      committed = names.length > 0;
      if (committed) assert.deepEqual(names, ["b1"]);
      else assert.equal(outcome, reason, `${where} ${stop}`);
    }
  }
});

Deno.test("a failure of any operation on the files ends the backup without a trace", async () => {
  let done = false;
  for (let skip = 0; !done; skip += 3) {
    const world = await BackupWorld.create();
    world.files.setFault({ kind: "repository", skip, count: 1 });
    const outcome = await backup(world).then(() => "done", (error: unknown) => error);
    world.files.clearFault();
    done = outcome === "done";
    assert.deepEqual(await listed(world), done ? ["b1"] : [], `failure ${skip}`);
    assert.equal(world.source.calls.at(-1), "close");
  }
});

Deno.test("an end exactly on a segment boundary belongs to the segment before", async () => {
  const world = await BackupWorld.create();
  world.source.stopLsn = parseLsn("0/4000000");
  const { metadata } = await backup(world);
  assert.equal(metadata.endWal, "000000010000000000000003");
});

Deno.test("the timeline comes from the backup label", async () => {
  const world = await BackupWorld.create();
  world.source.timeline = 3;
  const { metadata } = await backup(world);
  assert.equal(metadata.timeline, 3);
  assert.equal(metadata.startWal, "000000030000000000000002");
});

Deno.test("a label of another backup, or none, is refused before anything is committed", async () => {
  for (const label of ["START WAL LOCATION: 0/9000028 (file x)\nSTART TIMELINE: 1\n", ""]) {
    const world = await BackupWorld.create();
    world.source.backupLabel = label;
    await assert.rejects(backup(world), { kind: "protocol", message: /backup label/ });
    assert.deepEqual(await listed(world), []);
  }
});

Deno.test("a data directory and a tablespace behind links are followed, one inside the other is stored once", async () => {
  const world = await BackupWorld.create();
  const { files } = world;
  await files.rename(DATA_DIRECTORY, "/pg/real");
  await files.makeSymlink("/pg/real", DATA_DIRECTORY);
  await files.rename("/spaces/fast", "/spaces/real");
  await files.makeSymlink("/spaces/real", "/spaces/fast");
  await putFile(files, "/pg/real/inner/PG_17_202406281/5/1", "inside");
  const inner = { oid: "16385", name: "inner", location: `${DATA_DIRECTORY}/inner` };
  world.source.tablespaces = [...world.source.tablespaces, inner];
  await backup(world);
  assert.deepEqual(await listed(world), ["b1"]);
  const entries = await stored(world, "pgdata");
  assert.ok(entries.has("base/5/1259") && !entries.has("inner"));
  assert.ok((await stored(world, "tablespace")).has("PG_17_202406281/5/1"));
});

Deno.test("the data directory of another server is refused before PostgreSQL starts a backup", async () => {
  const world = await BackupWorld.create();
  await putFile(world.files, `${DATA_DIRECTORY}/global/pg_control`, controlFile(42n));
  await assert.rejects(backup(world), {
    kind: "source",
    message: /system identifier 42, the server has 73/,
  });
  await world.files.remove(`${DATA_DIRECTORY}/global/pg_control`);
  await assert.rejects(backup(world), { kind: "source", message: /no such file/ });
  assert.deepEqual(world.source.calls, ["connect", "close", "connect", "close"]);
});

Deno.test("a control file that changes between two readings is read again", async () => {
  const world = await BackupWorld.create();
  const torn = controlFile();
  torn[150] = 0;
  const readFile = world.files.readFile.bind(world.files);
  let readings = 0;
  world.files.readFile = async (path) => {
    const content = await readFile(path);
    // The first two readings are those before the backup starts.
    return path.endsWith("pg_control") && ++readings === 3 ? torn.slice() : content;
  };
  await backup(world);
  assert.equal(readings, 5);
  world.files.readFile = (path) => {
    const content = controlFile();
    content[150] = ++readings % 2;
    return path.endsWith("pg_control") ? Promise.resolve(content) : readFile(path);
  };
  await assert.rejects(backup(world, { name: "b2" }), { kind: "source", message: /changed/ });
});

Deno.test("a name is made from the time, is checked, and an existing one is a conflict", async () => {
  const world = await BackupWorld.create();
  await using session = world.session();
  const { name: _, ...unnamed } = world.backupRequest();
  const { metadata } = await runBackup(world.backupDeps(session), unnamed, WAITING);
  assert.equal(metadata.name, "backup-20260101000000");
  await assert.rejects(backup(world, { name: metadata.name }), { kind: "conflict" });
  for (const name of ["", "../x", "a b", ".hidden"]) {
    await assert.rejects(backup(world, { name }), { kind: "usage" });
  }
});

Deno.test("the backup waits until its WAL is archived, through outages of the archive", async () => {
  const world = await BackupWorld.create();
  world.walAnswers = [["000000010000000000000002"], new AppError("repository", "down"), []];
  const running = backup(world);
  await world.clock.untilSleeping(1);
  assert.deepEqual(await listed(world), ["b1"], "committed before the wait");
  await world.clock.advance(500);
  await world.clock.advance(500);
  const { statistics } = await running;
  assert.equal(statistics.seconds, 1);
});

Deno.test("WAL that does not arrive is an error that names the missing files", async () => {
  const world = await BackupWorld.create();
  world.walAnswers = [["000000010000000000000002"]];
  const failure = assert.rejects(backup(world, { walTimeoutMs: 1200 }), {
    kind: "timeout",
    message: /missing 000000010000000000000002 after 1200 ms/,
  });
  await world.clock.untilSleeping(1);
  await world.clock.advance(2000);
  await failure;
  world.walAnswers = [new AppError("permission", "no")];
  await assert.rejects(backup(world, { name: "b2" }), { kind: "permission" });
});

Deno.test("WAL that is lost is not waited for", async () => {
  const world = await BackupWorld.create();
  world.walAnswers = [["000000010000000000000002"]];
  const start = "000000010000000000000002.partial";
  world.walGaps = [{ recordedAtMs: 1, start, end: "000000010000000000000009" }];
  const before = world.clock.monotonicMs();
  await assert.rejects(backup(world), {
    kind: "source",
    message: /000000010000000000000002 is lost/,
  });
  assert.equal(world.clock.monotonicMs(), before);
});

Deno.test("an abort while waiting for WAL ends at once and leaves the stored backup", async () => {
  const world = await BackupWorld.create();
  world.walAnswers = [["000000010000000000000002"]];
  const controller = new AbortController();
  const reason = new AppError("cancelled", "Enough");
  const failure = assert.rejects(backup(world, {}, controller.signal), reason);
  await world.clock.untilSleeping(1);
  controller.abort(reason);
  await failure;
  assert.equal(world.clock.sleeping, 0);
  assert.deepEqual(await listed(world), ["b1"]);
});

Deno.test("progress rises to its totals", async () => {
  const world = await BackupWorld.create();
  const seen: BackupProgress[] = [];
  await backup(world, { onProgress: (progress) => seen.push(progress) });
  assert.deepEqual([...new Set(seen.map(({ phase }) => phase))], [
    "measuring",
    "copying",
    "committing",
    "waiting_for_wal",
    "done",
  ]);
  const last = seen.at(-1);
  assert.ok(last !== undefined && last.bytes === last.bytesTotal && last.files === last.filesTotal);
  for (const [i, progress] of seen.entries()) {
    assert.ok(progress.bytes >= (seen[i - 1]?.bytes ?? 0) && progress.bytes <= progress.bytesTotal);
  }
});
