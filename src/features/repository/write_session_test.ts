/**
 * Sessions beyond their contract: order and bounds of writes, failed and interrupted commits.
 *
 * @module
 */

import assert from "node:assert/strict";
import { utf8 } from "../../base/bytes.ts";
import { AppError, isKind } from "../../base/failure.ts";
import {
  noise,
  RepositoryWorld,
  WORLD_LABELS,
  writeRaw,
} from "../../../tests/support/repository_world.ts";
const waiting = { signal: new AbortController().signal };

const kind = (wanted: AppError["kind"]) => (error: unknown) => isKind(error, wanted);

Deno.test("closing in the middle of a flush leaves all of it or nothing, and ends the flush", async () => {
  for (const prefix of ["s", "p", "q", "xn"]) {
    await using world = await RepositoryWorld.open();
    const session = await world.session();
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    world.store.onOperation = async ({ kind, id }) => {
      if (kind !== "put" || !id.startsWith(prefix)) return undefined;
      reached.resolve();
      await gate.promise;
      return undefined;
    };
    const content = await writeRaw(session, noise(100, 1));
    await session.putManifest({ labels: WORLD_LABELS, json: utf8("{}") }, waiting);
    const flushed = session.flush(waiting).then(() => true, () => false);
    await reached.promise;
    const closed = session[Symbol.asyncDispose]();
    gate.resolve();
    await closed;
    const isDone = prefix === "xn"; // a commit that has begun is not interrupted
    assert.equal(await flushed, isDone);
    await world.reopen();
    const later = await world.session();
    assert.equal((await later.findManifests({}, waiting)).length, isDone ? 1 : 0);
    assert.equal(await later.contentInfo(content, waiting) !== undefined, isDone);
    assert.deepEqual(world.ids("s"), []);
  }
});

Deno.test("a flush stores marker, packs, index and removes the marker, each after the one before", async () => {
  await using world = await RepositoryWorld.open({ packBytesMax: 4000 });
  const session = await world.session();
  const log: string[] = [];
  const running = new Set<string>();
  world.store.onOperation = async ({ kind, id }) => {
    if (kind !== "put" && kind !== "remove") return undefined;
    const name = `${kind} ${id.slice(0, id.startsWith("x") ? 2 : 1)}`;
    const others = [...running];
    if (name === "put p") assert.ok(!others.some((other) => other.startsWith("s")), "marker first");
    // The pack with manifests, the index and the removal wait for everything else.
    else assert.deepEqual(others, [], `${name} while others are being stored`);
    running.add(id);
    for (let turn = 0; turn < 5; turn++) await Promise.resolve();
    running.delete(id);
    log.push(name);
    return undefined;
  };
  for (let i = 0; i < 7; i++) await writeRaw(session, noise(1500, i));
  await writeRaw(session, noise(300, 10), "k");
  await session.putManifest({ labels: WORLD_LABELS, json: utf8("{}") }, waiting);
  await session.flush(waiting);
  assert.equal(log[0], "put s");
  assert.deepEqual(log.slice(-2), ["put xn", "remove s"]);
  assert.deepEqual(log.slice(1, -2), ["put p", "put p", "put p", "put q"]);
  assert.deepEqual(world.ids("s"), []);

  const stats = await world.repository.stats(waiting);
  assert.deepEqual([stats.contents, stats.packs], [9, 4]); // the manifest is the ninth
  const bytes = world.ids("p").concat(world.ids("q"))
    .reduce((sum, id) => sum + (world.store.blobs.get(id)?.bytes.length ?? 0), 0);
  assert.equal(stats.bytes, bytes);
});

Deno.test("contents that are stored already cost nothing, whoever wrote them", async () => {
  await using world = await RepositoryWorld.open();
  const a = await world.session();
  await writeRaw(a, noise(9000, 1));
  await a.flush(waiting);
  const before = world.store.operations;
  const b = await world.session();
  await writeRaw(b, noise(9000, 1));
  await b.flush(waiting);
  assert.equal(world.store.operations, before);
});

Deno.test("compression is kept only when it pays, and lengths say so", async () => {
  await using world = await RepositoryWorld.open();
  const session = await world.session();
  const rows = utf8("0123456789".repeat(1000));
  const compression = 0x1101;
  const packed = await session.writeContent({ prefix: "", data: rows, compression }, waiting);
  const data = noise(10_000, 3);
  const raw = await session.writeContent({ prefix: "", data, compression }, waiting);
  await session.flush(waiting);
  const info = await session.contentInfo(packed, waiting);
  assert.ok(info !== undefined && info.packedLength < 500);
  assert.equal((await session.contentInfo(raw, waiting))?.packedLength, 10_000 + 28);
  assert.deepEqual(await session.readContent(packed, waiting), rows);
  assert.deepEqual(await session.readContent(raw, waiting), data);
});

Deno.test("a slow store holds writers back: bytes in memory stay below the bound", async () => {
  const packBytesMax = 10_000;
  const uploadBytesMax = 25_000;
  await using world = await RepositoryWorld.open({ packBytesMax, limits: { uploadBytesMax } });
  const session = await world.session();
  const gate = Promise.withResolvers<void>();
  let storing = 0;
  let storingMax = 0;
  world.store.onOperation = async ({ kind, id }) => {
    if (kind !== "put" || !id.startsWith("p")) return undefined;
    storingMax = Math.max(storingMax, ++storing);
    await gate.promise;
    storing--;
    return undefined;
  };
  let written = 0;
  const writes = Array.from({ length: 100 }, async (_, i) => {
    const id = await writeRaw(session, noise(1000, i));
    written += 1000;
    return id;
  });
  for (let turn = 0; turn < 1000; turn++) await Promise.resolve();
  // Two packs being stored, one that waits, one that is open and was filled before that one closed.
  assert.equal(storingMax, 2);
  assert.ok(written <= 4 * packBytesMax, `${written} bytes were accepted`);
  assert.ok(written >= 2 * packBytesMax);
  gate.resolve();
  const ids = await Promise.all(writes);
  await session.flush(waiting);
  assert.deepEqual(await session.readContent(ids[99] ?? "", waiting), noise(1000, 99));
});

Deno.test("a content that waits for its flush is held in memory only until its pack is stored", async () => {
  await using world = await RepositoryWorld.open({ packBytesMax: 1000 });
  const session = await world.session();
  let reads = 0;
  const stored = Promise.withResolvers<void>();
  world.store.onOperation = ({ kind, id }) => {
    if (kind === "get") reads++;
    if (kind === "put" && id.startsWith("q")) stored.resolve();
    return undefined;
  };
  const id = await writeRaw(session, noise(1000, 1));
  assert.deepEqual(await session.readContent(id, waiting), noise(1000, 1));
  assert.equal(reads, 0);
  await writeRaw(session, noise(1000, 2), "k");
  await stored.promise; // the other pack was put before it
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  assert.deepEqual(await session.readContent(id, waiting), noise(1000, 1));
  assert.equal(reads, 1);
});

Deno.test("an aborted write stops waiting for room, and the session goes on", async () => {
  await using world = await RepositoryWorld.open({ packBytesMax: 1000, limits: { uploadsMax: 1 } });
  const session = await world.session();
  const gate = Promise.withResolvers<void>();
  world.store.onOperation = async ({ kind }) => {
    if (kind === "put") await gate.promise;
    return undefined;
  };
  await writeRaw(session, noise(1000, 1));
  await writeRaw(session, noise(1000, 2));
  const abort = new AbortController();
  const stuck = session.writeContent(
    { prefix: "", data: noise(1000, 3), compression: 0 },
    { signal: abort.signal },
  );
  const reason = new Error("enough");
  abort.abort(reason);
  await assert.rejects(stuck, (e) => e === reason);
  gate.resolve();
  await session.flush(waiting);
  assert.equal((await world.repository.stats(waiting)).contents, 2);
});

Deno.test("a long session commits contents on its way, manifests only at its flush", async () => {
  await using world = await RepositoryWorld.open({ limits: { batchContentsMax: 10 } });
  const session = await world.session();
  const manifest = await session.putManifest({ labels: WORLD_LABELS, json: utf8("{}") }, waiting);
  const ids: string[] = [];
  for (let i = 0; i < 25; i++) ids.push(await writeRaw(session, noise(100, i)));
  const other = await world.session();
  assert.ok(await other.contentInfo(ids[0] ?? "", waiting) !== undefined);
  assert.equal(await other.contentInfo(ids[24] ?? "", waiting), undefined);
  await assert.rejects(other.readManifest(manifest, waiting), kind("not_found"));
  assert.equal((await session.readManifest(manifest, waiting)).id, manifest);
  await session.flush(waiting);
  assert.equal(world.ids("xn0_").length, 3);
  assert.deepEqual(world.ids("s"), []);
  await world.reopen();
  const later = await world.session();
  for (const [i, id] of ids.entries()) {
    assert.deepEqual(await later.readContent(id, waiting), noise(100, i));
  }
  assert.equal((await later.readManifest(manifest, waiting)).id, manifest);
});

Deno.test("when a commit fails, a flush that came after it commits nothing either", async () => {
  await using world = await RepositoryWorld.open();
  const session = await world.session();
  const error = new AppError("exhausted", "Store: full");
  world.store.onOperation = ({ kind, id }) =>
    kind === "put" && id.startsWith("p") ? { fail: error } : undefined;
  const content = await writeRaw(session, noise(1000, 1));
  const first = session.flush(waiting);
  // Its content counts as known here: the manifest below relies on the first flush.
  assert.equal(await writeRaw(session, noise(1000, 1)), content);
  await session.putManifest({ labels: WORLD_LABELS, json: utf8("{}") }, waiting);
  const second = session.flush(waiting);
  await assert.rejects(first, (e) => e === error);
  await assert.rejects(second, (e) => e === error);
  await assert.rejects(session.flush(waiting), (e) => e === error);
  await assert.rejects(writeRaw(session, noise(10, 2)), (e) => e === error);
  await world.reopen();
  world.store.onOperation = () => undefined;
  const later = await world.session();
  assert.deepEqual(await later.findManifests({}, waiting), []);
  assert.equal(await later.contentInfo(content, waiting), undefined);
});

Deno.test("a manifest that is not UTF-8 is refused", async () => {
  await using world = await RepositoryWorld.open();
  const session = await world.session();
  const json = Uint8Array.of(0x22, 0xff, 0x22);
  await assert.rejects(
    session.putManifest({ labels: WORLD_LABELS, json }, waiting),
    kind("protocol"),
  );
});
