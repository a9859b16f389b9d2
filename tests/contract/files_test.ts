/**
 * The contract of the `Files` port, run against the real file system and the in-memory one; then what only the in-memory
 * one can show: what a crash may leave, and faults on demand.
 *
 * @module
 */

import assert from "node:assert/strict";

import { openLocalFiles } from "../../src/adapters/localfs/files.ts";
import { fromUtf8, utf8 } from "../../src/base/bytes.ts";
import { failureKind } from "../../src/base/failure.ts";
import type { Files } from "../../src/ports/files.ts";
import { MemoryFiles } from "../support/memory_files.ts";

async function rejectsWith(kind: string, work: Promise<unknown>): Promise<void> {
  await assert.rejects(work, (error) => {
    assert.equal(failureKind(error), kind);
    return true;
  });
}

function contract(name: string, body: (files: Files, root: string) => Promise<void>): void {
  Deno.test(`local files: ${name}`, async () => {
    const root = await Deno.makeTempDir({ prefix: "klio-files-" });
    try {
      await body(openLocalFiles(), root);
    } finally {
      await Deno.remove(root, { recursive: true });
    }
  });
  Deno.test(`memory files: ${name}`, async () => {
    const files = new MemoryFiles();
    await files.makeDirectory("/data/files");
    await body(files, "/data/files");
  });
}

contract("written bytes are read back at any position", async (files, root) => {
  await using file = await files.open(`${root}/a`, "create_new");
  await file.write(utf8("hello world"), 0);
  await file.write(utf8("W"), 6);
  await file.write(utf8("!"), 13);
  await file.sync();
  assert.equal(await file.size(), 14);
  const buffer = new Uint8Array(5);
  assert.equal(await file.read(buffer, 6), 5);
  assert.equal(fromUtf8(buffer), "World");
  assert.equal(await file.read(buffer, 12), 2);
  assert.deepEqual([...buffer.subarray(0, 2)], [0, 33]);
  assert.equal(await file.read(buffer, 14), 0);
  assert.equal(await file.read(buffer, 1000), 0);
});

contract("calls that overlap on one handle do not disturb each other", async (files, root) => {
  await using file = await files.open(`${root}/a`, "create_new");
  const places = Array.from({ length: 50 }, (_, index) => index * 3);
  await Promise.all(places.map((place) => file.write(new Uint8Array(3).fill(place), place)));
  await Promise.all(places.map(async (place) => {
    const buffer = new Uint8Array(3);
    assert.equal(await file.read(buffer, place), 3);
    assert.deepEqual([...buffer], [place, place, place]);
  }));
});

contract("truncate cuts and grows with zeros", async (files, root) => {
  await using file = await files.open(`${root}/a`, "create_new");
  await file.write(utf8("abcdef"), 0);
  await file.truncate(2);
  await file.truncate(4);
  assert.deepEqual([...await files.readFile(`${root}/a`)], [97, 98, 0, 0]);
});

contract("open modes keep their word", async (files, root) => {
  await rejectsWith("not_found", files.open(`${root}/a`, "read"));
  await rejectsWith("not_found", files.open(`${root}/a`, "update"));
  await rejectsWith("not_found", files.open(`${root}/none/a`, "create_new"));
  await (await files.open(`${root}/a`, "create_new", 0o640)).close();
  assert.equal((await files.stat(`${root}/a`)).mode, 0o640);
  await rejectsWith("conflict", files.open(`${root}/a`, "create_new"));
  await rejectsWith("not_found", files.open(`${root}/a/b`, "create_new"));
  await using file = await files.open(`${root}/a`, "update");
  await file.write(utf8("x"), 0);
  assert.equal(fromUtf8(await files.readFile(`${root}/a`)), "x");
});

contract("closing lets the calls before it end", async (files, root) => {
  const file = await files.open(`${root}/a`, "create_new");
  const before = [file.write(utf8("abc"), 0), file.sync()];
  await file.close();
  await Promise.all(before);
  assert.equal(fromUtf8(await files.readFile(`${root}/a`)), "abc");
});

contract("a closed handle refuses work, closing twice is fine", async (files, root) => {
  const file = await files.open(`${root}/a`, "create_new");
  await file.close();
  await file.close();
  await rejectsWith("repository", file.write(utf8("x"), 0));
  await rejectsWith("repository", file.sync());
});

contract("writeFileAtomic replaces the content and leaves nothing aside", async (files, root) => {
  await files.writeFileAtomic(`${root}/a`, utf8("one"));
  await files.writeFileAtomic(`${root}/a`, utf8("two"), 0o640);
  assert.equal(fromUtf8(await files.readFile(`${root}/a`)), "two");
  assert.equal((await files.stat(`${root}/a`)).mode, 0o640);
  await files.makeDirectory(`${root}/b/c`);
  await rejectsWith("repository", files.writeFileAtomic(`${root}/b`, utf8("x")));
  await rejectsWith("not_found", files.writeFileAtomic(`${root}/none/a`, utf8("x")));
  assert.deepEqual([...await files.list(root)].sort(), ["a", "b"]);
});

contract("rename replaces a file and refuses a full directory", async (files, root) => {
  await files.writeFileAtomic(`${root}/a`, utf8("a"));
  await files.writeFileAtomic(`${root}/b`, utf8("b"));
  await files.rename(`${root}/a`, `${root}/b`);
  await files.syncDirectory(root);
  assert.deepEqual([...await files.list(root)], ["b"]);
  assert.equal(fromUtf8(await files.readFile(`${root}/b`)), "a");
  await rejectsWith("not_found", files.rename(`${root}/a`, `${root}/c`));
  await files.makeDirectory(`${root}/full/x`);
  await files.makeDirectory(`${root}/other`);
  await rejectsWith("conflict", files.rename(`${root}/other`, `${root}/full`));
  await files.rename(`${root}/b`, `${root}/other/b`);
  assert.deepEqual([...await files.list(`${root}/other`)], ["b"]);
});

contract("remove takes files, links and empty directories", async (files, root) => {
  await rejectsWith("not_found", files.remove(`${root}/a`));
  await files.makeDirectory(`${root}/d/e`);
  await rejectsWith("conflict", files.remove(`${root}/d`));
  await files.remove(`${root}/d/e`);
  await files.makeSymlink("/nowhere", `${root}/link`);
  await files.remove(`${root}/link`);
  await files.makeDirectory(`${root}/d/f/g`);
  await files.removeTree(`${root}/d`);
  await files.removeTree(`${root}/d`);
  assert.deepEqual([...await files.list(root)], []);
});

contract(
  "makeDirectory makes parents, accepts existing ones, refuses files",
  async (files, root) => {
    await files.makeDirectory(`${root}/a/b/c`, 0o750);
    await files.makeDirectory(`${root}/a/b/c`);
    const info = await files.stat(`${root}/a/b`);
    assert.equal(info.kind, "directory");
    assert.equal(info.mode, 0o750);
    await files.writeFileAtomic(`${root}/file`, utf8("x"));
    await rejectsWith("conflict", files.makeDirectory(`${root}/file`));
    await rejectsWith("not_found", files.makeDirectory(`${root}/file/a`));
  },
);

contract("list and read tell what is absent", async (files, root) => {
  await rejectsWith("not_found", files.list(`${root}/none`));
  await rejectsWith("not_found", files.readFile(`${root}/none`));
  await rejectsWith("not_found", files.stat(`${root}/none`));
  await rejectsWith("not_found", files.syncDirectory(`${root}/none`));
  await files.writeFileAtomic(`${root}/file`, utf8("x"));
  await rejectsWith("not_found", files.list(`${root}/file`));
  await files.makeDirectory(`${root}/d`);
  await rejectsWith("repository", files.readFile(`${root}/d`));
});

contract("attributes are set and told, links are not followed by stat", async (files, root) => {
  await files.writeFileAtomic(`${root}/a`, utf8("12345"));
  await files.makeSymlink(`${root}/a`, `${root}/link`);
  assert.equal(await files.readSymlink(`${root}/link`), `${root}/a`);
  assert.equal((await files.stat(`${root}/link`)).kind, "symlink");
  assert.equal(fromUtf8(await files.readFile(`${root}/link`)), "12345");
  await rejectsWith("conflict", files.makeSymlink("x", `${root}/link`));
  await files.setMode(`${root}/a`, 0o2755);
  await files.setTimes(`${root}/a`, 1_234_567_890_123);
  const { uid, gid } = await files.stat(`${root}/a`);
  await files.setOwner(`${root}/a`, uid, gid);
  assert.equal((await files.stat(`${root}/a`)).sizeBytes, 5);
  assert.equal((await files.stat(`${root}/a`)).mtimeMs, 1_234_567_890_123);
  assert.equal((await files.stat(`${root}/a`)).mode & 0o777, 0o755);
  await rejectsWith("not_found", files.setMode(`${root}/none`, 0o600));
});

contract("space is told", async (files, root) => {
  const { freeBytes, totalBytes } = await files.space(root);
  assert.ok(freeBytes > 0 && totalBytes >= freeBytes);
  await rejectsWith("not_found", files.space(`${root}/none`));
});

Deno.test("local files: a full device is exhausted, a refused one permission", async () => {
  const files = openLocalFiles();
  await using full = await files.open("/dev/full", "update");
  await rejectsWith("exhausted", full.write(utf8("x"), 0));
});

/** What the machine finds at `path` after a crash, for many seeds. */
async function outcomes(
  script: (files: MemoryFiles) => Promise<void>,
  path: string,
): Promise<Set<string>> {
  const found = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const files = new MemoryFiles();
    await files.makeDirectory("/d");
    await script(files);
    const next = files.afterCrash(seed);
    const content = await next.readFile(path).catch(() => utf8("absent"));
    found.add(fromUtf8(content).replaceAll("\0", "0"));
  }
  return found;
}

Deno.test("memory files: without syncs anything may be left, torn writes included", async () => {
  const found = await outcomes(async (files) => {
    await using file = await files.open("/d/a", "create_new");
    await file.write(utf8("ab"), 0);
    await file.write(utf8("cd"), 2);
  }, "/d/a");
  for (const wanted of ["absent", "", "ab", "abcd", "00cd", "a"]) {
    assert.ok(found.has(wanted), wanted);
  }
});

Deno.test("memory files: synced content under a synced name survives every crash", async () => {
  const found = await outcomes(async (files) => {
    await using file = await files.open("/d/a", "create_new");
    await file.write(utf8("ab"), 0);
    await file.sync();
    await files.syncDirectory("/d");
    await file.write(utf8("XY"), 2);
  }, "/d/a");
  assert.ok([...found].every((content) => content.startsWith("ab")), [...found].join());
  assert.ok(found.size > 1);
});

Deno.test("memory files: writeFileAtomic is old or new at any crash, new after it resolved", async () => {
  for (let at = 1;; at++) {
    const seen = new Set<string>();
    let finished = false;
    for (let seed = 0; seed < 20; seed++) {
      const files = new MemoryFiles();
      await files.makeDirectory("/d");
      await files.writeFileAtomic("/d/a", utf8("old"));
      files.crashAt(files.operations + at);
      await files.writeFileAtomic("/d/a", utf8("new")).then(() => finished = true, () => {});
      seen.add(fromUtf8(await files.afterCrash(seed).readFile("/d/a")));
    }
    seen.delete("new");
    if (finished) {
      assert.deepEqual([...seen], []);
      return;
    }
    seen.delete("old");
    assert.deepEqual([...seen], []);
  }
});

Deno.test("memory files: what a failed sync lost is not saved by the next one", async () => {
  const found = await outcomes(async (files) => {
    await using file = await files.open("/d/a", "create_new");
    await files.syncDirectory("/d");
    await file.write(utf8("ab"), 0);
    files.setFault({ kind: "repository", operations: ["sync"], count: 1 });
    await rejectsWith("repository", file.sync());
    await file.sync();
    assert.equal(fromUtf8(await files.readFile("/d/a")), "ab");
  }, "/d/a");
  assert.ok(found.has(""), [...found].join());
});

Deno.test("memory files: a fault hits the chosen operations and goes away", async () => {
  const files = new MemoryFiles();
  await files.makeDirectory("/d");
  await using file = await files.open("/d/a", "create_new");
  files.setFault({ kind: "exhausted", operations: ["write"], skip: 1, count: 2 });
  await file.write(utf8("a"), 0);
  await rejectsWith("exhausted", file.write(utf8("b"), 1));
  await rejectsWith("exhausted", file.write(utf8("b"), 1));
  await file.write(utf8("c"), 1);
  assert.equal(fromUtf8(await files.readFile("/d/a")), "ac");
  files.setFault({ kind: "permission", path: "/d/x" });
  await file.write(utf8("d"), 2);
  await rejectsWith("permission", files.open("/d/x", "create_new"));
  files.clearFault();
  await (await files.open("/d/x", "create_new")).close();
});

Deno.test("memory files: after the crash nothing works any more", async () => {
  const files = new MemoryFiles();
  await files.makeDirectory("/d");
  const file = await files.open("/d/a", "create_new");
  files.crashAt(files.operations + 1);
  await rejectsWith("repository", file.write(utf8("a"), 0));
  assert.ok(files.crashed);
  await rejectsWith("repository", files.list("/d"));
  await file.close();
});
