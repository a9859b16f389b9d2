/**
 * Our backups in the hands of stock kopia and the other way round: it verifies and restores the parts of ours, makes the same
 * directory objects of the same tree, and we list and restore a backup that was written with its command line as upstream
 * does.
 *
 * @module
 */

import assert from "node:assert/strict";
import { openLocalBlobStore } from "../../src/adapters/localfs/blob_store.ts";
import { openLocalFiles } from "../../src/adapters/localfs/files.ts";
import { SILENT } from "../../src/base/log.ts";
import { encodeBackupMetadata } from "../../src/domain/backup.ts";
import { runBackup } from "../../src/features/backup/mod.ts";
import { listBackups } from "../../src/features/catalog/mod.ts";
import { ObjectWriter, type TreeUpload, uploadTree } from "../../src/features/objects/mod.ts";
import {
  createRepository,
  openRepository,
  type Repository,
} from "../../src/features/repository/mod.ts";
import { runRestore } from "../../src/features/restore/mod.ts";
import {
  BackupWorld,
  controlFile,
  DATA_DIRECTORY,
  ODD_NAME,
  treeOf,
  WAITING,
} from "../support/backup_world.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { reportNoGo, stockKopia, StockKopiaClient } from "../support/stock_kopia.ts";

const PASSWORD = "correct horse";
const OWNER = { user: "klio", host: "cluster-a", purpose: "test" };
const IDENTITY_FLAGS = ["--override-username=klio", "--override-hostname=cluster-a"];

interface Bench extends AsyncDisposable {
  readonly root: string;
  readonly client: StockKopiaClient;
  open(): Promise<Repository>;
}

async function openBench(kopia: string): Promise<Bench> {
  const root = await Deno.makeTempDir({ prefix: "klio-test-" });
  const random = new SeededRandom(11);
  const deps = async () => ({
    store: await openLocalBlobStore(
      { files: openLocalFiles(), random, root: `${root}/repository` },
      WAITING,
    ),
    random,
    clock: new FakeClock({ startMs: Date.now() }),
    password: PASSWORD,
  });
  await createRepository(await deps(), WAITING);
  await Deno.mkdir(`${root}/home`);
  return {
    root,
    client: new StockKopiaClient({ kopia, home: `${root}/home`, password: PASSWORD }),
    open: async () => await openRepository(await deps(), WAITING),
    [Symbol.asyncDispose]: () => Deno.remove(root, { recursive: true }),
  };
}

function test(what: string, body: (bench: Bench) => Promise<void>): void {
  Deno.test(`stock kopia: ${what}`, async () => {
    const kopia = await stockKopia();
    if (kopia === undefined) return reportNoGo();
    await using bench = await openBench(kopia);
    await body(bench);
  });
}

interface ListedSnapshot {
  readonly id: string;
  readonly source: { readonly path: string };
  readonly tags?: Readonly<Record<string, string>>;
  readonly rootEntry: { readonly obj: string };
}

async function listSnapshots(client: StockKopiaClient): Promise<ListedSnapshot[]> {
  return JSON.parse(await client.run("snapshot", "list", "--all", "--json"));
}

/** A directory with what trees may hold; times in whole milliseconds, which is all that the runtime can read. */
async function makeTree(root: string): Promise<void> {
  const random = new SeededRandom(12);
  await Deno.mkdir(`${root}/base/5`, { recursive: true, mode: 0o700 });
  await Deno.mkdir(`${root}/empty`);
  await Deno.writeFile(`${root}/base/5/large`, random.bytes(1_000_000));
  await Deno.writeFile(`${root}/base/5/zeros`, new Uint8Array(700_000));
  await Deno.writeFile(`${root}/base/nothing`, new Uint8Array());
  await Deno.writeTextFile(`${root}/${ODD_NAME}`, "odd");
  await Deno.symlink("base/5", `${root}/link`);
  await Deno.chmod(`${root}/base/5/large`, 0o640);
  await Deno.chmod(`${root}/base/5`, 0o2770);
  await setTimes(root);
}

/** Leaves of the tree first: every change touches the directory above. */
async function setTimes(root: string): Promise<void> {
  const paths = [
    "base/5/large",
    "base/5/zeros",
    "base/nothing",
    ODD_NAME,
    "base/5",
    "base",
    "empty",
    "",
  ];
  for (const [i, path] of paths.entries()) {
    await Deno.utime(
      `${root}/${path}`,
      new Date(1_700_000_000_000 + i),
      new Date(1_700_000_000_123 + i),
    );
  }
}

test("verifies and restores the parts of our backup", async (bench) => {
  const world = await BackupWorld.create();
  {
    await using repository = await bench.open();
    await using session = await repository.openSession(OWNER, WAITING);
    await runBackup(world.backupDeps(session), world.backupRequest(), WAITING);
  }
  const { client, root } = bench;
  await client.connect(`${root}/repository`, "--readonly", ...IDENTITY_FLAGS);
  await client.run("snapshot", "verify", "--verify-files-percent=100");
  const snapshots = await listSnapshots(client);
  assert.deepEqual(snapshots.map(({ source }) => source.path).toSorted(), [
    "/pg/data",
    "/pg/data/global/pg_control",
    "/pg/data_meta",
    "/spaces/fast",
  ]);
  for (const { id, source, tags } of snapshots) {
    assert.equal(tags?.["tag:klio.io/tag"], "b1", source.path);
    if (tags?.["tag:klio.io/content"] === "controldata") {
      await client.run("snapshot", "restore", id, `${root}/pg_control`);
      assert.deepEqual(await Deno.readFile(`${root}/pg_control`), controlFile());
    }
    if (tags?.["tag:klio.io/content"] !== "pgdata") continue;
    await client.run("snapshot", "restore", id, `${root}/restored`);
    const restored = await treeOf(openLocalFiles(), `${root}/restored`);
    const original = await treeOf(world.files, DATA_DIRECTORY);
    assert.ok(restored.size > 12);
    for (const [path, what] of restored) {
      if (/^\/(pg_wal|pg_replslot|log)$/.test(path)) continue; // stored empty
      assert.equal(what, original.get(path), path);
    }
    assert.ok(restored.has(`/base/5/${ODD_NAME}`));
  }
});

test("makes the same objects of the same tree", async (bench) => {
  const { client, root } = bench;
  const tree = `${root}/tree`;
  await makeTree(tree);
  await Deno.remove(`${tree}/link`); // its own time cannot be set to whole milliseconds
  await setTimes(tree);
  let ours: string;
  {
    await using repository = await bench.open();
    await using session = await repository.openSession(OWNER, WAITING);
    const upload: TreeUpload = {
      files: openLocalFiles(),
      writer: new ObjectWriter(session, { bytesInFlightMax: 1 << 20 }),
      select: () => "keep",
      parallelFiles: 2,
      observer: { onBytes() {}, onFile() {}, onVanished() {} },
    };
    ours = (await uploadTree(upload, tree, WAITING)).objectId;
    await session.flush(WAITING);
  }
  await client.connect(`${root}/repository`, ...IDENTITY_FLAGS);
  await client.run("policy", "set", "--global", "--compression=zstd-fastest");
  await client.run("snapshot", "create", tree);
  const [snapshot] = await listSnapshots(client);
  assert.equal(snapshot?.rootEntry.obj, ours);
});

test("its own snapshots with the tags of upstream are a backup that we list and restore", async (bench) => {
  const { client, root } = bench;
  const data = `${root}/pgdata`;
  await makeTree(data);
  await Deno.mkdir(`${data}/global`);
  await Deno.writeFile(`${data}/global/pg_control`, controlFile());
  await Deno.mkdir(`${root}/pgdata_meta`);
  const world = await BackupWorld.create();
  await using memory = world.session();
  const { metadata } = await runBackup(world.backupDeps(memory), world.backupRequest(), WAITING);
  const upstream = {
    ...metadata,
    dataDirectory: data,
    tablespaces: [],
    systemId: undefined,
    pgVersion: undefined,
  };
  await Deno.writeTextFile(`${root}/pgdata_meta/metadata.json`, encodeBackupMetadata(upstream));
  await client.connect(`${root}/repository`, ...IDENTITY_FLAGS);
  const parts = [["pgdata", data], ["controldata", `${data}/global/pg_control`], [
    "metadata",
    `${root}/pgdata_meta`,
  ]];
  for (const [content, path] of parts) {
    await client.run(
      "snapshot",
      "create",
      `${path}`,
      "--tags=klio.io/tag:b1",
      `--tags=klio.io/content:${content}`,
    );
  }
  await using repository = await bench.open();
  await using session = await repository.openSession(OWNER, WAITING);
  const { backups, unreadable } = await listBackups(session, { ...WAITING, cluster: "cluster-a" });
  assert.deepEqual(unreadable, []);
  assert.deepEqual(backups.map((backup) => [backup.metadata, backup.problems]), [[upstream, []]]);
  const files = openLocalFiles();
  const deps = { repository: session, files, clock: new FakeClock(), log: SILENT };
  const request = world.restoreRequest({
    targetDirectory: `${root}/restored`,
    tablespacePaths: new Map(),
  });
  await runRestore(deps, request, WAITING);
  const restored = await treeOf(files, `${root}/restored`);
  const original = await treeOf(files, data);
  assert.ok(original.has(`/${ODD_NAME}`) && original.has("/link"));
  for (const [path, what] of original) {
    if (path !== "/global/pg_control") assert.equal(restored.get(path), what, path);
  }
  assert.deepEqual(await Deno.readFile(`${root}/restored/global/pg_control`), controlFile());
});
