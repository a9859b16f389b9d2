/**
 * Tree uploads from files in memory; whole backups are in `features/backup`.
 *
 * @module
 */

import assert from "node:assert/strict";
import { BackupWorld, putFile, WAITING } from "../../../tests/support/backup_world.ts";
import { AppError } from "../../base/failure.ts";
import { decodeDirectory, type DirectoryEntry } from "../../codec/kopia/directory.ts";
import { ObjectReader } from "./object_reader.ts";
import { ObjectWriter } from "./object_writer.ts";
import { measureTree, resolveDirectory, type Select, uploadTree } from "./tree_upload.ts";

/** A world with a small tree at `/t`. */
async function worldWithTree(): Promise<BackupWorld> {
  const world = new BackupWorld();
  await putFile(world.files, "/t/a", "12345");
  await putFile(world.files, "/t/d/b", "678");
  await world.files.makeSymlink("a", "/t/link");
  return world;
}

interface Uploaded {
  readonly root: DirectoryEntry;
  readonly names: readonly string[];
  readonly vanished: number;
}

async function upload(world: BackupWorld, select: Select = () => "keep"): Promise<Uploaded> {
  await using session = world.session();
  const writer = new ObjectWriter(session, { bytesInFlightMax: 1 << 20 });
  let vanished = 0;
  const observer = { onBytes() {}, onFile() {}, onVanished: () => void vanished++ };
  const { files } = world;
  const root = await uploadTree(
    { files, writer, select, parallelFiles: 2, observer },
    "/t",
    WAITING,
  );
  const reader = new ObjectReader(session, { bytesAheadMax: 1 });
  const bytes = await reader.readAll(root.objectId, { ...WAITING, sizeBytesMax: 1 << 20 });
  return { root, names: decodeDirectory(bytes).entries.map(({ name }) => name), vanished };
}

Deno.test("the root has the summary of its tree, directories come first", async () => {
  const world = await worldWithTree();
  const { root, names } = await upload(world);
  assert.deepEqual(names, ["d", "a", "link"]);
  const { sizeBytes, files, symlinks, directories } = root.summary ?? assert.fail("no summary");
  assert.deepEqual([sizeBytes, files, symlinks, directories], [8, 2, 1, 2]);
  const select = () => "keep" as const;
  assert.deepEqual(await measureTree({ files: world.files, select }, "/t", WAITING), {
    bytes: 8,
    files: 2,
  });
});

Deno.test("names that vanish after listing are counted: files, links and directories", async () => {
  for (const gone of ["/t/a", "/t/link", "/t/d"]) {
    const world = await worldWithTree();
    const stat = world.files.stat.bind(world.files);
    world.files.stat = async (path) => {
      if (path === gone) await world.files.removeTree(gone);
      return await stat(path);
    };
    const { names, vanished } = await upload(world);
    assert.ok(!names.includes(gone.slice(3)), gone);
    assert.equal(vanished, 1, gone);
  }
  const world = await worldWithTree();
  const readSymlink = world.files.readSymlink.bind(world.files);
  world.files.readSymlink = async (path) => {
    await world.files.remove(path);
    return await readSymlink(path);
  };
  assert.deepEqual((await upload(world)).vanished, 1);
});

Deno.test("a root that is gone is an error, not an empty backup", async () => {
  await assert.rejects(upload(new BackupWorld()), { kind: "not_found", message: /"\/t"/ });
});

Deno.test("sockets and the like are left out, names that are not UTF-8 are refused", async () => {
  const world = await worldWithTree();
  const { files } = world;
  const stat = files.stat.bind(files);
  files.stat = async (path) => {
    const info = await stat(path);
    return path === "/t/a" ? { ...info, kind: "other" } : info;
  };
  assert.deepEqual((await upload(world)).names, ["d", "link"]);
  const list = files.list.bind(files);
  files.list = async (path) => [...await list(path), "bad\ufffd"];
  await assert.rejects(upload(world), { kind: "source", message: /not UTF-8/ });
});

Deno.test("an emptied link becomes a private directory", async () => {
  const world = await worldWithTree();
  const { root } = await upload(world, (path) => path === "link" ? "empty" : "skip");
  const { files, symlinks, directories } = root.summary ?? assert.fail("no summary");
  assert.deepEqual([files, symlinks, directories], [0, 0, 2]);
});

Deno.test("resolveDirectory() follows relative and absolute links and refuses circles", async () => {
  const { files } = await worldWithTree();
  await files.makeSymlink("d/", "/t/relative");
  await files.makeSymlink("/t/relative", "/t/absolute");
  await files.makeSymlink("circle", "/t/circle");
  for (const path of ["/t/d", "/t/d/", "/t/relative", "/t/absolute"]) {
    assert.equal(await resolveDirectory(files, path), "/t/d");
  }
  await assert.rejects(resolveDirectory(files, "/t/circle"), { kind: "source" });
  await assert.rejects(resolveDirectory(files, "/none"), { kind: "not_found" });
});

Deno.test("an abort ends an upload with its reason", async () => {
  const world = await worldWithTree();
  await using session = world.session();
  const writer = new ObjectWriter(session, { bytesInFlightMax: 1 << 20 });
  const controller = new AbortController();
  const reason = new AppError("cancelled", "Enough");
  const observer = { onBytes: () => controller.abort(reason), onFile() {}, onVanished() {} };
  const whole = {
    files: world.files,
    writer,
    select: () => "keep" as const,
    parallelFiles: 1,
    observer,
  };
  await assert.rejects(uploadTree(whole, "/t", controller), reason);
});
