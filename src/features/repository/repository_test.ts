/**
 * Opening and refusing, reopening, limits, and damaged packs.
 *
 * @module
 */

import assert from "node:assert/strict";
import { utf8 } from "../../base/bytes.ts";
import { type AppError, isKind } from "../../base/failure.ts";
import { FakeClock } from "../../../tests/support/fake_clock.ts";
import { MemoryBlobStore } from "../../../tests/support/memory_blob_store.ts";
import {
  copyRepositoryTemplate,
  TEMPLATE_PASSWORD,
} from "../../../tests/support/repository_template.ts";
import {
  noise,
  RepositoryWorld,
  WORLD_LABELS,
  WORLD_OWNER,
  writeRaw,
} from "../../../tests/support/repository_world.ts";
import { SeededRandom } from "../../../tests/support/seeded_random.ts";
import { recoverPacks } from "../../../tests/support/recover_packs.ts";
import { createRepository, openRepository } from "./repository.ts";
import { CONTENT_BYTES_MAX, MANIFEST_BYTES_MAX } from "./write_session.ts";
const waiting = { signal: new AbortController().signal };

const kind = (wanted: AppError["kind"]) => (error: unknown) => isKind(error, wanted);

Deno.test("openRepository() says what is wrong: nothing there, wrong password, in use, format lost", async () => {
  const deps = (store: MemoryBlobStore, password = TEMPLATE_PASSWORD) => ({
    store,
    clock: new FakeClock(),
    random: new SeededRandom(1),
    password,
  });
  await assert.rejects(openRepository(deps(new MemoryBlobStore()), waiting), kind("not_found"));

  const { store } = await copyRepositoryTemplate();
  await assert.rejects(openRepository(deps(store, "wrong"), waiting), kind("permission"));
  const first = await openRepository(deps(store), waiting);
  await assert.rejects(openRepository(deps(store), waiting), kind("conflict"));
  await first.close();
  await first.close();
  await assert.rejects(first.openSession(WORLD_OWNER, waiting), kind("cancelled"));
  await (await openRepository(deps(store), waiting)).close();

  store.blobs.delete("kopia.repository");
  await assert.rejects(openRepository(deps(store), waiting), kind("not_found"));
  await store.put("q0", [utf8("x")], waiting);
  await assert.rejects(openRepository(deps(store), waiting), kind("corruption"));
  // None of the refusals kept the lock.
  await using _ = await store.lock(waiting);
});

Deno.test("createRepository() leaves alone what is there, and a store in use", async () => {
  const { store } = await copyRepositoryTemplate();
  const before = new Map(store.blobs);
  const deps = { store, clock: new FakeClock(), random: new SeededRandom(1), password: "p" };
  await assert.rejects(createRepository(deps, waiting), kind("conflict"));
  assert.deepEqual(store.blobs, before);

  const packs = new MemoryBlobStore();
  await packs.put("p0", [utf8("x")], waiting);
  await assert.rejects(createRepository({ ...deps, store: packs }, waiting), kind("conflict"));
  assert.equal(packs.blobs.size, 1);

  const used = new MemoryBlobStore();
  await using _ = await used.lock(waiting);
  await assert.rejects(createRepository({ ...deps, store: used }, waiting), kind("conflict"));
  assert.equal(used.blobs.size, 0);
});

Deno.test("an interrupted creation can be repeated", async () => {
  const store = new MemoryBlobStore();
  const deps = { clock: new FakeClock(), random: new SeededRandom(1), password: "p" };
  store.onOperation = ({ kind, id }) =>
    kind === "put" && id === "kopia.repository" ? { crash: "lost" } : undefined;
  await assert.rejects(createRepository({ ...deps, store }, waiting));
  const next = store.restart();
  assert.deepEqual([...next.blobs.keys()], ["kopia.blobcfg"]);
  await createRepository({ ...deps, store: next }, waiting);
  await (await openRepository({ ...deps, store: next }, waiting)).close();
});

Deno.test("what was flushed is there after reopening, removed manifests are not", async () => {
  await using world = await RepositoryWorld.open();
  const session = await world.session();
  const content = await writeRaw(session, noise(5000, 1));
  const kept = await session.putManifest({ labels: WORLD_LABELS, json: utf8('{"a":1}') }, waiting);
  const gone = await session.putManifest({ labels: WORLD_LABELS, json: utf8("{}") }, waiting);
  await session.flush(waiting);
  await session.removeManifest(gone, waiting);
  await session.flush(waiting);
  await world.reopen();
  const later = await world.session();
  assert.deepEqual(await later.readContent(content, waiting), noise(5000, 1));
  const found = await later.findManifests({ type: "snapshot" }, waiting);
  assert.deepEqual(found.map((m) => m.id), [kept]);
  assert.deepEqual((await later.readManifest(kept, waiting)).json, utf8('{"a":1}'));
});

Deno.test("limits are refused by name: content, manifest, changes, sessions", async () => {
  await using world = await RepositoryWorld.open({ limits: { sessionsMax: 2 } });
  const session = await world.session();
  await assert.rejects(writeRaw(session, new Uint8Array(CONTENT_BYTES_MAX + 1)), kind("exhausted"));
  const long = utf8(`"${" ".repeat(MANIFEST_BYTES_MAX)}"`);
  await assert.rejects(
    session.putManifest({ labels: WORLD_LABELS, json: long }, waiting),
    kind("exhausted"),
  );
  const put = () =>
    session.putManifest({ labels: WORLD_LABELS, json: utf8(`"${" ".repeat(1 << 20)}"`) }, waiting);
  for (let i = 0; i < 15; i++) await put();
  await assert.rejects(put(), kind("exhausted"));
  await session.flush(waiting);
  await put();
  const other = await world.session();
  await assert.rejects(world.session(), kind("exhausted"));
  await other[Symbol.asyncDispose]();
  await (await world.session())[Symbol.asyncDispose]();
});

Deno.test("damage is corruption: lost pack, cut pack, flipped bit, other bytes under the right key", async () => {
  await using world = await RepositoryWorld.open();
  const session = await world.session();
  const data = noise(2000, 1);
  const id = await writeRaw(session, data);
  await session.flush(waiting);
  const info = await session.contentInfo(id, waiting);
  assert.ok(info !== undefined);
  const { packBlobId, packOffset, packedLength } = info;
  const whole = world.store.blobs.get(packBlobId);
  assert.ok(whole !== undefined);
  const damage = (change: (bytes: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>) =>
    world.store.blobs.set(packBlobId, { ...whole, bytes: change(whole.bytes.slice()) });
  const refused = () => assert.rejects(session.readContent(id, waiting), kind("corruption"));

  damage((bytes) => bytes.slice(0, packOffset + packedLength - 1));
  await refused();
  damage((bytes) => {
    bytes.set([(bytes[packOffset + 100] ?? 0) ^ 1], packOffset + 100);
    return bytes;
  });
  await refused();
  const { hash } = world.codec.identify("", data);
  const forged = world.codec.cipher.encrypt(noise(2000, 2), hash, world.codec.nonce());
  damage((bytes) => {
    bytes.set(forged, packOffset);
    return bytes;
  });
  await refused();
  world.store.blobs.delete(packBlobId);
  await refused();
  damage((bytes) => bytes);
  assert.deepEqual(await session.readContent(id, waiting), data);
});

Deno.test("recoverPacks() reports a damaged pack and goes on with the others", async () => {
  await using world = await RepositoryWorld.open({ packBytesMax: 2000 });
  const session = await world.session();
  for (let i = 0; i < 4; i++) await writeRaw(session, noise(1500, i));
  await session.flush(waiting);
  const [damaged] = world.ids("p");
  const blob = world.store.blobs.get(damaged ?? "");
  assert.ok(damaged !== undefined && blob !== undefined);
  const found: Record<string, number> = {};
  for (const bytes of [blob.bytes.slice(0, -1), blob.bytes.slice(0, 10), new Uint8Array(0)]) {
    world.store.blobs.set(damaged, { ...blob, bytes });
    for await (const pack of recoverPacks(world, waiting)) {
      assert.equal(pack.damage?.kind, pack.blobId === damaged ? "corruption" : undefined);
      found[pack.blobId] = pack.entries.length;
    }
    assert.deepEqual(Object.values(found).sort(), [0, 2]);
  }
});
