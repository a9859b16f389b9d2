/**
 * Layout on disk as stock kopia has it, and what a power loss leaves; the rest is in the contract suite.
 *
 * @module
 */

import assert from "node:assert/strict";
import { fromUtf8, utf8 } from "../../base/bytes.ts";
import { AppError, isKind } from "../../base/failure.ts";
import type { Files } from "../../ports/files.ts";
import type { BlobStore } from "../../ports/blob_store.ts";
import { MemoryFiles } from "../../../tests/support/memory_files.ts";
import { SeededRandom } from "../../../tests/support/seeded_random.ts";
import { openLocalBlobStore } from "./blob_store.ts";
import { openLocalFiles } from "./files.ts";
import { decodeShards, shardPath } from "./shards.ts";

const waiting = { signal: new AbortController().signal };
const PACK = "p0123456789abcdef0123456789abcdef-s0123456789abcdef13c";

function open(files: Files, root: string): Promise<BlobStore> {
  return openLocalBlobStore({ files, root, random: new SeededRandom(1) }, waiting);
}

async function ids(store: BlobStore): Promise<string[]> {
  const found: string[] = [];
  for await (const { id } of store.list("", waiting)) found.push(id);
  return found.sort();
}

Deno.test("a new store is laid out as stock kopia lays it out, for its owner only", async () => {
  const parent = await Deno.makeTempDir({ prefix: "klio-test-" });
  try {
    const root = `${parent}/deep/base`;
    const store = await open(openLocalFiles(), root);
    await store.put(PACK, [utf8("pack")], waiting);
    await store.put("kopia.repository", [utf8("format")], waiting);
    assert.deepEqual(JSON.parse(await Deno.readTextFile(`${root}/.shards`)), {
      default: [1, 3],
      maxNonShardedLength: 20,
    });
    const path = `${root}/p/012/${PACK.slice(4)}.f`;
    assert.equal(await Deno.readTextFile(path), "pack");
    assert.equal(await Deno.readTextFile(`${root}/kopia.repository.f`), "format");
    assert.equal(((await Deno.stat(path)).mode ?? 0) & 0o777, 0o600);
    for (const directory of [root, `${root}/p`, `${root}/p/012`]) {
      assert.equal(((await Deno.stat(directory)).mode ?? 0) & 0o777, 0o700, directory);
    }
    await Deno.writeTextFile(`${path}.tmp.0123456789abcdef`, "left over");
    await Deno.writeTextFile(`${root}/notes.txt`, "somebody's");
    assert.deepEqual(await ids(store), ["kopia.repository", PACK]);
    assert.equal(await Deno.readTextFile(`${path}.tmp.0123456789abcdef`), "left over");
  } finally {
    await Deno.remove(parent, { recursive: true });
  }
});

Deno.test("a store without shard rules that holds something was written with [3,3]", async () => {
  const files = new MemoryFiles();
  await files.makeDirectory("/base/p01/234");
  await files.writeFileAtomic("/base/kopia.repository.f", utf8("format"));
  await files.writeFileAtomic(`/base/p01/234/${PACK.slice(6)}.f`, utf8("pack"));
  const store = await open(files, "/base");
  assert.deepEqual(await ids(store), ["kopia.repository", PACK]);
  assert.deepEqual(await store.get(PACK, waiting), utf8("pack"));
  assert.deepEqual(JSON.parse(fromUtf8(await files.readFile("/base/.shards"))).default, [3, 3]);
});

Deno.test("what is no blob does not make a store an old one", async () => {
  const files = new MemoryFiles();
  await files.makeDirectory("/base/lost+found");
  await files.writeFileAtomic("/base/.shards.tmp.01234567", utf8("{"));
  await open(files, "/base");
  assert.deepEqual(JSON.parse(fromUtf8(await files.readFile("/base/.shards"))).default, [1, 3]);
});

Deno.test("shard rules: overrides by prefix, short ids whole, anything malformed is corruption", async () => {
  const rules = {
    default: [1, 3],
    maxNonShardedLength: 4,
    overrides: [{ prefix: "q", shards: [2] }, { prefix: "n", shards: [] }],
  };
  const shards = decodeShards(JSON.stringify(rules), "x");
  assert.deepEqual(shardPath(shards, "p1234567"), { directories: ["p", "123"], name: "4567" });
  assert.deepEqual(shardPath(shards, "q1234567"), { directories: ["q1"], name: "234567" });
  assert.deepEqual(shardPath(shards, "n1234567"), { directories: [], name: "n1234567" });
  assert.deepEqual(shardPath(shards, "p123"), { directories: [], name: "p123" });
  const garbage = ["", "{", "null", "[]", '{"default":[0],"maxNonShardedLength":1}'];
  garbage.push('{"default":[1]}', '{"default":"x","maxNonShardedLength":1}');
  garbage.push('{"default":[1],"maxNonShardedLength":1,"overrides":[{"prefix":1,"shards":[]}]}');
  for (const text of garbage) {
    assert.throws(() => decodeShards(text, "x"), (e) => isKind(e, "corruption"), text);
  }
  const files = new MemoryFiles();
  await files.makeDirectory("/base");
  await files.writeFileAtomic("/base/.shards", utf8("garbage"));
  await assert.rejects(open(files, "/base"), (e) => isKind(e, "corruption"));
});

Deno.test("an id that could leave the store is refused", async () => {
  const store = await open(new MemoryFiles(), "/base");
  for (const id of ["", ".", "..", "../x", "a/b", "a..b", ".shards", "a\0b", "p\n", "ä", "-x"]) {
    await assert.rejects(store.put(id, [], waiting), (e) => isKind(e, "protocol"), id);
    await assert.rejects(store.get(id, waiting), (e) => isKind(e, "protocol"), id);
  }
});

Deno.test("after a power loss at any operation a blob that was put is there, another is whole or absent", async () => {
  const content = new SeededRandom(5).bytes(10_000);
  const parts = [content.subarray(0, 4000), content.subarray(4000)];
  for (let n = 1;; n++) {
    const files = new MemoryFiles();
    let hasStore = false;
    const confirmed: string[] = [];
    files.crashAt(n);
    const blobs = [PACK, `q${PACK}`, "kopia.repository"];
    try {
      const store = await open(files, "/data/base");
      hasStore = true;
      for (const id of blobs) {
        await store.put(id, parts, waiting);
        confirmed.push(id);
      }
    } catch (error) {
      assert.ok(error instanceof AppError && files.crashed);
    }
    for (let seed = 0; seed < 12; seed++) {
      const after = await open(files.afterCrash(seed), "/data/base");
      const found = await ids(after);
      for (const id of confirmed) assert.ok(found.includes(id), `crash at ${n}: ${id} is lost`);
      for (const id of found) assert.deepEqual(await after.get(id, waiting), content);
    }
    if (confirmed.length === blobs.length) {
      assert.ok(hasStore && n > 20, `${n} operations`);
      return;
    }
  }
});

Deno.test("a shard directory left by a killed process is made durable before it is relied upon", async () => {
  const files = new MemoryFiles();
  const first = await open(files, "/base");
  // The first process creates "p" and dies before the fsync that would make that durable.
  files.setFault({ kind: "repository", operations: ["syncDirectory"], count: 1 });
  await assert.rejects(first.put(PACK, [utf8("x")], waiting));
  files.clearFault();
  const second = await open(files, "/base");
  await second.put(PACK, [utf8("x")], waiting);
  for (let seed = 0; seed < 12; seed++) {
    const after = await open(files.afterCrash(seed), "/base");
    assert.deepEqual(await ids(after), [PACK]);
  }
});

Deno.test("a failed put leaves nothing aside and keeps what was there", async () => {
  const files = new MemoryFiles();
  const store = await open(files, "/base");
  await store.put(PACK, [utf8("old")], waiting);
  for (const operation of ["create", "write", "sync", "rename"] as const) {
    files.setFault({ kind: "exhausted", operations: [operation], count: 1 });
    await assert.rejects(store.put(PACK, [utf8("new")], waiting), (e) => isKind(e, "exhausted"));
    files.clearFault();
    assert.deepEqual(await store.get(PACK, waiting), utf8("old"));
    assert.deepEqual(await files.list("/base/p/012"), [`${PACK.slice(4)}.f`]);
  }
});
