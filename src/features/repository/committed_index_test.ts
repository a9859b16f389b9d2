/**
 * Epochs, tombstones and other programs, seen through a whole repository.
 *
 * @module
 */

import assert from "node:assert/strict";
import { utf8 } from "../../base/bytes.ts";
import { type AppError, isKind } from "../../base/failure.ts";
import { noise, RepositoryWorld, writeRaw } from "../../../tests/support/repository_world.ts";
const waiting = { signal: new AbortController().signal };
const REFRESH_MS = 20 * 60_000;

const kind = (wanted: AppError["kind"]) => (error: unknown) => isKind(error, wanted);

Deno.test("a tombstone hides a content once the watermark passed it; writing brings it back", async () => {
  await using world = await RepositoryWorld.open();
  const session = await world.session();
  const data = noise(1000, 1);
  const id = await writeRaw(session, data);
  await session.flush(waiting);
  const info = await session.contentInfo(id, waiting);
  assert.ok(info !== undefined);
  const deletedSeconds = info.timestampSeconds + 5;
  await world.putIndex(0, [{
    ...info,
    timestampSeconds: deletedSeconds,
    deleted: true,
    compression: 0,
    encryptionKeyId: 0,
  }]);
  await world.reopen();
  const deleted = await world.session();
  assert.equal((await deleted.contentInfo(id, waiting))?.deleted, true);
  assert.deepEqual(await deleted.readContent(id, waiting), data);

  await world.store.put(`xw${deletedSeconds}`, [utf8("x")], waiting);
  await world.reopen();
  const final = await world.session();
  assert.equal(await final.contentInfo(id, waiting), undefined);
  await assert.rejects(final.readContent(id, waiting), kind("not_found"));

  world.store.blobs.delete(`xw${deletedSeconds}`);
  await world.reopen();
  const again = await world.session();
  assert.equal(await writeRaw(again, data), id);
  await again.flush(waiting);
  const back = await again.contentInfo(id, waiting);
  assert.equal(back?.deleted, false);
  assert.equal(back?.timestampSeconds, deletedSeconds + 1);
});

Deno.test("a commit reads the epoch again when three quarters of its validity are not left", async () => {
  await using world = await RepositoryWorld.open();
  const session = await world.session();
  await world.store.put("xe1", [utf8("epoch-marker")], waiting);
  await writeRaw(session, noise(100, 1));
  await world.clock.advance(REFRESH_MS * 0.25);
  await session.flush(waiting);
  assert.equal(world.ids("xn0_").length, 1); // still valid: the epoch before is read as well

  await writeRaw(session, noise(100, 2));
  await world.clock.advance(1);
  await session.flush(waiting);
  assert.equal(world.ids("xn1_").length, 1);
  await world.reopen();
  assert.equal((await world.repository.stats(waiting)).contents, 2);
});

Deno.test("a commit is taken back when the epoch moved on by two meanwhile", async () => {
  await using world = await RepositoryWorld.open();
  const session = await world.session();
  world.store.onOperation = ({ kind, id }) => {
    if (kind === "put" && id.startsWith("xn0_")) {
      const marker = { bytes: utf8("epoch-marker"), modifiedMs: world.clock.nowMs() };
      world.store.blobs.set("xe1", marker).set("xe2", marker);
    }
    return undefined;
  };
  const id = await writeRaw(session, noise(100, 1));
  await assert.rejects(session.flush(waiting), kind("conflict"));
  assert.deepEqual(world.ids("xn"), []);
  const retry = await world.session();
  assert.equal(await retry.contentInfo(id, waiting), undefined);
  await writeRaw(retry, noise(100, 1));
  await retry.flush(waiting);
  assert.equal(world.ids("xn2_").length, 1);
});

Deno.test("what another program wrote is seen after a refresh, also when blobs vanish meanwhile", async () => {
  await using world = await RepositoryWorld.open();
  const session = await world.session();
  const id = await writeRaw(session, noise(100, 1));
  await session.flush(waiting);
  const info = await session.contentInfo(id, waiting);
  assert.ok(info !== undefined);
  const entry = { ...info, compression: 0, encryptionKeyId: 0 };
  const otherId = "00".repeat(16);
  await world.putIndex(0, [{ ...entry, id: otherId }]);
  assert.equal(await session.contentInfo(otherId, waiting), undefined);
  await world.clock.advance(REFRESH_MS);
  await world.session();
  assert.ok(await session.contentInfo(otherId, waiting) !== undefined);

  // Between the listing and the reading another program compacts the blob away.
  const vanishing = await world.putIndex(0, [{ ...entry, id: "11".repeat(16) }]);
  await world.clock.advance(REFRESH_MS);
  world.store.onOperation = async ({ kind, id }) => {
    if (kind === "get" && id === vanishing && world.store.blobs.delete(id)) {
      await world.putIndex(0, [{ ...entry, id: "11".repeat(16) }, {
        ...entry,
        id: "22".repeat(16),
      }]);
    }
    return undefined;
  };
  await world.session();
  assert.ok(await session.contentInfo("22".repeat(16), waiting) !== undefined);
});
