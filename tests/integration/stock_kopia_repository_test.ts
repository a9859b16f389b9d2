/**
 * Stock kopia reads what our repository wrote, and we read what it wrote. Every step that could change the repository runs
 * on a copy.
 *
 * @module
 */

import assert from "node:assert/strict";
import { openLocalBlobStore } from "../../src/adapters/localfs/blob_store.ts";
import { openLocalFiles } from "../../src/adapters/localfs/files.ts";
import { fromUtf8, utf8 } from "../../src/base/bytes.ts";
import { createRepository, openRepository } from "../../src/features/repository/mod.ts";
import type { Repository } from "../../src/features/repository/mod.ts";
import type { RepositorySession } from "../../src/ports/repository_session.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { reportNoGo, stockKopia, StockKopiaClient } from "../support/stock_kopia.ts";

const PASSWORD = "correct horse";
const OWNER = { user: "klio", host: "cluster-a", purpose: "test" };
const waiting = { signal: new AbortController().signal };
const COMPRESSION = 0x1101;
const TIME = "2026-02-03T04:05:06.789Z";

/** A directory with a repository, and room for copies and kopia's own files. */
class Workshop implements AsyncDisposable {
  readonly path: string;
  readonly #kopia: string;
  #homes = 0;

  constructor(path: string, kopia: string) {
    this.path = path;
    this.#kopia = kopia;
  }

  async open(repository: string): Promise<Repository> {
    return await openRepository(await this.#deps(repository), waiting);
  }

  async create(repository: string): Promise<void> {
    await createRepository(await this.#deps(repository), waiting);
  }

  async #deps(repository: string) {
    const random = new SeededRandom(this.#homes++);
    const root = `${this.path}/${repository}`;
    const store = await openLocalBlobStore({ files: openLocalFiles(), random, root }, waiting);
    return { store, random, clock: new FakeClock({ startMs: Date.now() }), password: PASSWORD };
  }

  /** A kopia connected to a repository. */
  async connect(repository: string, ...args: readonly string[]): Promise<StockKopiaClient> {
    const home = `${this.path}/home${this.#homes++}`;
    await Deno.mkdir(home);
    const client = new StockKopiaClient({ kopia: this.#kopia, home, password: PASSWORD });
    await client.connect(`${this.path}/${repository}`, ...args);
    return client;
  }

  async copy(from: string, to: string): Promise<void> {
    await copyTree(`${this.path}/${from}`, `${this.path}/${to}`);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Deno.remove(this.path, { recursive: true });
  }
}

async function copyTree(from: string, to: string): Promise<void> {
  await Deno.mkdir(to);
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    if (isDirectory) await copyTree(`${from}/${name}`, `${to}/${name}`);
    else await Deno.copyFile(`${from}/${name}`, `${to}/${name}`);
  }
}

function test(what: string, body: (workshop: Workshop) => Promise<void>): void {
  Deno.test(`stock kopia: ${what}`, async () => {
    const kopia = await stockKopia();
    if (kopia === undefined) return reportNoGo();
    await using workshop = new Workshop(
      await Deno.makeTempDir({ prefix: "klio-test-" }),
      kopia,
    );
    await body(workshop);
  });
}

/** Files of the snapshot that we write by hand: compressible, incompressible, tiny. */
const FILES: Readonly<Record<string, Uint8Array<ArrayBuffer>>> = {
  "noise": new SeededRandom(7).bytes(300_000),
  "rows": utf8("0123456789abcdef".repeat(20_000)),
  "tiny": utf8("x"),
};

/** One content per file, a directory object, a snapshot manifest: what any client of ours writes. */
async function writeSnapshot(session: RepositorySession, path: string): Promise<void> {
  const entries: string[] = [];
  let total = 0;
  for (const [name, data] of Object.entries(FILES)) {
    const id = await session.writeContent({ prefix: "", data, compression: COMPRESSION }, waiting);
    entries.push(
      `{"name":"${name}","type":"f","mode":"0640","size":${data.length},"mtime":"${TIME}","obj":"${id}"}`,
    );
    total += data.length;
  }
  const summary =
    `{"size":${total},"files":${entries.length},"symlinks":0,"dirs":1,"maxTime":"${TIME}","numFailed":0}`;
  const directory = await session.writeContent({
    prefix: "k",
    data: utf8(`{"stream":"kopia:directory","entries":[${entries}],"summary":${summary}}\n`),
    compression: COMPRESSION,
  }, waiting);
  const { user, host } = OWNER;
  await session.putManifest({
    labels: { type: "snapshot", username: user, hostname: host, path },
    json: utf8(
      `{"id":"","source":{"host":"${host}","userName":"${user}","path":"${path}"},"description":"",` +
        `"startTime":"${TIME}","endTime":"${TIME}","rootEntry":{"name":"data","type":"d",` +
        `"mode":"0755","mtime":"${TIME}","obj":"${directory}","summ":${summary}}}`,
    ),
  }, waiting);
}

/** Two flushes, a removed manifest, a session that was given up: everything an append-only writer leaves behind. */
async function fill(workshop: Workshop, repository: string): Promise<void> {
  await workshop.create(repository);
  await using opened = await workshop.open(repository);
  await using session = await opened.openSession(OWNER, waiting);
  await writeSnapshot(session, "/one");
  await session.flush(waiting);
  await writeSnapshot(session, "/two");
  await writeSnapshot(session, "/gone");
  await session.flush(waiting);
  const [gone] = await session.findManifests({ type: "snapshot", path: "/gone" }, waiting);
  await session.removeManifest(gone?.id ?? "", waiting);
  await session.flush(waiting);
  await using dropped = await opened.openSession(OWNER, waiting);
  await writeSnapshot(dropped, "/dropped");
}

async function restoreAndCompare(client: StockKopiaClient, id: string, target: string) {
  await client.run("restore", id, target);
  for (const [name, data] of Object.entries(FILES)) {
    assert.deepEqual(new Uint8Array(await Deno.readFile(`${target}/${name}`)), data, name);
  }
}

async function listSnapshots(client: StockKopiaClient): Promise<{ id: string; path: string }[]> {
  const list: { id: string; source: { path: string } }[] = JSON.parse(
    await client.run("snapshot", "list", "--all", "--json"),
  );
  return list.map(({ id, source }) => ({ id, path: source.path }));
}

test("opens, lists, verifies and restores what we wrote", async (workshop) => {
  await fill(workshop, "ours");
  const client = await workshop.connect("ours", "--readonly");
  const status = await client.run("repository", "status");
  assert.match(status, /CHACHA20-POLY1305-HMAC-SHA256/);
  assert.match(status, /HMAC-SHA256-128/);
  assert.match(status, /FIXED-128K/);

  const snapshots = await listSnapshots(client);
  assert.deepEqual(snapshots.map((s) => s.path).sort(), ["/one", "/two"]);
  assert.equal((await client.run("index", "list")).trim().split("\n").length, 3);
  const contents: { contentID: string }[] = JSON.parse(
    await client.run("content", "list", "--json", "--deleted"),
  );
  // Three files and one directory object, shared by all snapshots; three flushes with manifests.
  assert.equal(contents.filter((c) => !c.contentID.startsWith("m")).length, 4);
  assert.equal(contents.filter((c) => c.contentID.startsWith("m")).length, 3);
  await client.run("content", "verify", "--full");
  await client.run("snapshot", "verify", "--verify-files-percent=100");
  for (const [i, { id }] of snapshots.entries()) {
    await restoreAndCompare(client, id, `${workshop.path}/restored${i}`);
  }
});

test("refuses our repository with another password", async (workshop) => {
  await workshop.create("ours");
  const kopia = await stockKopia() ?? "";
  const home = `${workshop.path}/home`;
  await Deno.mkdir(home);
  const client = new StockKopiaClient({ kopia, home, password: "wrong" });
  await assert.rejects(client.connect(`${workshop.path}/ours`), /invalid repository password/);
});

test("rebuilds the index from our packs alone", async (workshop) => {
  await fill(workshop, "ours");
  await workshop.copy("ours", "copy");
  const client = await workshop.connect("copy");
  await client.run(
    "index",
    "recover",
    "--delete-indexes",
    "--commit",
    "--parallel=2",
    "--dangerous-commands=enabled",
  );
  await client.run("content", "verify", "--full");
  const snapshots = await listSnapshots(client);
  assert.deepEqual(snapshots.map((s) => s.path).sort(), ["/one", "/two"]);
  await restoreAndCompare(client, snapshots[0]?.id ?? "", `${workshop.path}/restored`);
});

test("runs full maintenance on our repository, and we still read it", async (workshop) => {
  await fill(workshop, "ours");
  await workshop.copy("ours", "copy");
  const client = await workshop.connect("copy");
  await client.run("maintenance", "set", "--owner=me");
  await client.run("maintenance", "run", "--full", "--safety=none");
  await client.run("snapshot", "verify", "--verify-files-percent=100");
  await using opened = await workshop.open("copy");
  await using session = await opened.openSession(OWNER, waiting);
  const found = await session.findManifests({ type: "snapshot" }, waiting);
  assert.deepEqual(found.map((m) => m.labels.path), ["/one", "/two"]);
  for (const { id } of found) await readBack(session, id);
});

test("writes into our repository, and we read what it wrote", async (workshop) => {
  await fill(workshop, "ours");
  await workshop.copy("ours", "copy");
  const source = `${workshop.path}/source`;
  await Deno.mkdir(source);
  for (const [name, data] of Object.entries(FILES)) {
    await Deno.writeFile(`${source}/${name}`, data);
  }
  const client = await workshop.connect(
    "copy",
    `--override-username=${OWNER.user}`,
    `--override-hostname=${OWNER.host}`,
  );
  await client.run("policy", "set", "--global", "--compression=zstd-fastest");
  await client.run("snapshot", "create", source);

  await using opened = await workshop.open("copy");
  await using session = await opened.openSession(OWNER, waiting);
  const found = await session.findManifests({ type: "snapshot", path: source }, waiting);
  assert.equal(found.length, 1);
  await readBack(session, found[0]?.id ?? "");
  // And we go on writing behind it.
  await writeSnapshot(session, "/three");
  await session.flush(waiting);
  assert.deepEqual(
    (await listSnapshots(client)).map((s) => s.path).sort(),
    ["/one", "/three", "/two", source].sort(),
  );
  await client.run("content", "verify", "--full");
});

/** Walks a snapshot with contents only: its directory, then its files, direct or of several pieces. */
async function readBack(session: RepositorySession, manifestId: string): Promise<void> {
  const read = async (id: string) => await session.readContent(id, waiting);
  const { json } = await session.readManifest(manifestId, waiting);
  const root: string = JSON.parse(fromUtf8(json)).rootEntry.obj;
  const { entries }: { entries: { name: string; obj: string }[] } = JSON.parse(
    fromUtf8(await read(root)),
  );
  assert.deepEqual(entries.map((e) => e.name).sort(), Object.keys(FILES).sort());
  for (const { name, obj } of entries) {
    let ids = [obj];
    if (obj.startsWith("I")) {
      const index: { entries: { o: string }[] } = JSON.parse(fromUtf8(await read(obj.slice(1))));
      ids = index.entries.map((piece) => piece.o);
    }
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    for (const id of ids) pieces.push(await read(id));
    assert.deepEqual(new Uint8Array(await new Blob(pieces).arrayBuffer()), FILES[name], name);
  }
}
