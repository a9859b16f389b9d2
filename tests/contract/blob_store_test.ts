/**
 * What every {@link BlobStore} promises, as one suite over each implementation.
 *
 * @module
 */

import assert from "node:assert/strict";
import { openLocalFiles } from "../../src/adapters/localfs/files.ts";
import { openLocalBlobStore } from "../../src/adapters/localfs/blob_store.ts";
import { utf8 } from "../../src/base/bytes.ts";
import { isKind } from "../../src/base/failure.ts";
import type { BlobStore } from "../../src/ports/blob_store.ts";
import { MemoryBlobStore } from "../support/memory_blob_store.ts";
import { SeededRandom } from "../support/seeded_random.ts";

interface StoreUnderTest extends AsyncDisposable {
  readonly store: BlobStore;
  /** Another opening of the same store. */
  again(): Promise<BlobStore>;
}

const waiting = { signal: new AbortController().signal };
const LONG = "p0123456789abcdef0123456789abcdef-s0123456789abcdef13c";

function testBlobStore(name: string, create: () => Promise<StoreUnderTest>): void {
  function test(what: string, body: (under: StoreUnderTest) => Promise<void>): void {
    Deno.test(`${name}: ${what}`, async () => {
      await using under = await create();
      await body(under);
    });
  }

  async function ids(store: BlobStore, prefix: string): Promise<string[]> {
    const found: string[] = [];
    for await (const blob of store.list(prefix, waiting)) found.push(blob.id);
    return found.sort();
  }

  test("a blob of several parts is read back whole, also through another opening", async (under) => {
    const parts = [utf8("one "), new Uint8Array(0), utf8("two "), utf8("three")];
    for (const id of [LONG, "kopia.repository", "xn0_00-s1-c1", "_log_x", "s"]) {
      await under.store.put(id, parts, waiting);
      assert.deepEqual(await under.store.get(id, waiting), utf8("one two three"));
      assert.deepEqual(await (await under.again()).get(id, waiting), utf8("one two three"));
    }
  });

  test("ranges inside are exact, outside are corruption", async ({ store }) => {
    await store.put(LONG, [utf8("0123456789")], waiting);
    const range = (offset: number, length: number) =>
      store.get(LONG, { ...waiting, offset, length });
    assert.deepEqual(await range(3, 4), utf8("3456"));
    assert.deepEqual(await range(0, 10), utf8("0123456789"));
    assert.deepEqual(await range(10, 0), utf8(""));
    assert.deepEqual(await store.get(LONG, { ...waiting, offset: 7 }), utf8("789"));
    for (const [offset, length] of [[8, 3], [11, 0], [0, 11], [-1, 2], [2, -1]] as const) {
      await assert.rejects(range(offset, length), (e) => isKind(e, "corruption"));
    }
  });

  test("an absent blob is not_found, removing it is success", async ({ store }) => {
    await assert.rejects(store.get(LONG, waiting), (e) => isKind(e, "not_found"));
    await assert.rejects(store.stat(LONG, waiting), (e) => isKind(e, "not_found"));
    await store.remove(LONG, waiting);
    await store.put(LONG, [utf8("x")], waiting);
    await store.remove(LONG, waiting);
    await store.remove(LONG, waiting);
    await assert.rejects(store.get(LONG, waiting), (e) => isKind(e, "not_found"));
    assert.deepEqual(await ids(store, ""), []);
  });

  test("put replaces, and an empty blob is a blob", async ({ store }) => {
    await store.put(LONG, [utf8("a longer first content")], waiting);
    await store.put(LONG, [utf8("second")], waiting);
    assert.deepEqual(await store.get(LONG, waiting), utf8("second"));
    await store.put(LONG, [], waiting);
    assert.equal((await store.get(LONG, waiting)).length, 0);
    assert.equal((await store.stat(LONG, waiting)).sizeBytes, 0);
  });

  test("a listing shows each blob of the prefix once, with size and time", async ({ store }) => {
    const all = ["kopia.repository", "kopia.blobcfg", "p1", LONG, `${LONG}0`, "q" + LONG, "xn0_a"];
    for (const id of all) await store.put(id, [utf8(id)], waiting);
    assert.deepEqual(await ids(store, ""), all.toSorted());
    assert.deepEqual(await ids(store, "p"), ["p1", LONG, `${LONG}0`].sort());
    assert.deepEqual(await ids(store, LONG.slice(0, 3)), [LONG, `${LONG}0`]);
    assert.deepEqual(await ids(store, LONG), [LONG, `${LONG}0`]);
    assert.deepEqual(await ids(store, "kopia."), ["kopia.blobcfg", "kopia.repository"]);
    assert.deepEqual(await ids(store, "z"), []);
    for await (const blob of store.list("p0", waiting)) {
      assert.deepEqual(blob, await store.stat(blob.id, waiting));
      assert.equal(blob.sizeBytes, blob.id.length);
      assert.ok(blob.modifiedMs > Date.UTC(2020, 0, 1));
    }
  });

  test("many puts at once all arrive", async ({ store }) => {
    const all = Array.from({ length: 50 }, (_, i) => `q${String(i % 5).repeat(3)}${LONG}${i}`);
    await Promise.all(all.map((id) => store.put(id, [utf8(id)], waiting)));
    assert.deepEqual(await ids(store, ""), all.toSorted());
    for (const id of all) assert.deepEqual(await store.get(id, waiting), utf8(id));
  });

  test("bytes handed out are owned", async ({ store }) => {
    const bytes = utf8("content");
    await store.put(LONG, [bytes], waiting);
    bytes.fill(0);
    (await store.get(LONG, waiting)).fill(0);
    assert.deepEqual(await store.get(LONG, waiting), utf8("content"));
  });

  test("an aborted signal stops every call, an aborted put leaves nothing", async ({ store }) => {
    const reason = new Error("enough");
    const aborted = { signal: AbortSignal.abort(reason) };
    const calls: Array<() => Promise<unknown>> = [
      () => store.put(LONG, [utf8("x")], aborted),
      () => store.get(LONG, aborted),
      () => store.stat(LONG, aborted),
      () => store.remove(LONG, aborted),
      () => store.lock(aborted),
    ];
    for (const call of calls) await assert.rejects(call(), (e) => e === reason);
    assert.deepEqual(await ids(store, ""), []);
    await using _ = await store.lock(waiting);
  });

  test("the lock has one holder at a time, whoever opened the store", async (under) => {
    const other = await under.again();
    const held = await under.store.lock(waiting);
    await assert.rejects(other.lock(waiting), (e) => isKind(e, "conflict"));
    await assert.rejects(under.store.lock(waiting), (e) => isKind(e, "conflict"));
    await held[Symbol.asyncDispose]();
    await using _ = await other.lock(waiting);
    await held[Symbol.asyncDispose]();
    await assert.rejects(under.store.lock(waiting), (e) => isKind(e, "conflict"));
    assert.deepEqual(await ids(other, ""), []);
  });
}

testBlobStore("MemoryBlobStore", () => {
  const store = new MemoryBlobStore();
  return Promise.resolve({
    store,
    again: () => Promise.resolve(store),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
});

testBlobStore("LocalBlobStore", async () => {
  const root = await Deno.makeTempDir({ prefix: "klio-test-" });
  const open = () =>
    openLocalBlobStore({ files: openLocalFiles(), random: new SeededRandom(1), root }, waiting);
  return {
    store: await open(),
    again: open,
    [Symbol.asyncDispose]: () => Deno.remove(root, { recursive: true }),
  };
});
