/**
 * Crashes and failures at every single store operation of a scripted life, and a seeded model test. What was flushed must be
 * readable, what was not must be whole or absent, and every visible manifest must have all its contents.
 *
 * @module
 */

import assert from "node:assert/strict";
import { fromUtf8, utf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import type { RepositoryFormat } from "../../codec/kopia/format.ts";
import type { RepositorySession } from "../../ports/repository_session.ts";
import { FakeClock } from "../../../tests/support/fake_clock.ts";
import type { Fate, MemoryBlobStore } from "../../../tests/support/memory_blob_store.ts";
import { copyRepositoryTemplate } from "../../../tests/support/repository_template.ts";
import { SeededRandom } from "../../../tests/support/seeded_random.ts";
import { ContentCodec } from "./content_codec.ts";
import { recoverPacks } from "../../../tests/support/recover_packs.ts";
import { openWithFormat, type Repository } from "./repository.ts";

const waiting = { signal: new AbortController().signal };
const OWNER = { user: "klio", host: "cluster-a", purpose: "test" };
/** Small packs, so that a few contents fill several. */
const PACK_BYTES_MAX = 2048;

interface Place {
  readonly store: MemoryBlobStore;
  readonly format: RepositoryFormat;
}

async function newPlace(): Promise<Place> {
  const { store, format } = await copyRepositoryTemplate();
  return { store, format: { ...format, maxPackSizeBytes: PACK_BYTES_MAX } };
}

function open(place: Place, seed: number): Promise<Repository> {
  const deps = { store: place.store, clock: new FakeClock(), random: new SeededRandom(seed) };
  return openWithFormat(deps, place.format, waiting);
}

/** The bytes of content number `n`: noise, so that packs fill. */
function block(n: number): Uint8Array<ArrayBuffer> {
  return new SeededRandom(n).bytes(700 + (n % 7) * 200);
}

/** Writes blocks and a manifest `path` whose document lists their ids: a backup in small. */
async function writeBackup(
  session: RepositorySession,
  path: string,
  blocks: readonly number[],
): Promise<string> {
  const contents: Record<string, number> = {};
  for (const n of blocks) {
    const prefix = n % 5 === 0 ? "k" : "";
    const id = await session.writeContent({ prefix, data: block(n), compression: 0 }, waiting);
    contents[id] = n;
  }
  return await session.putManifest({
    labels: { type: "snapshot", username: OWNER.user, hostname: OWNER.host, path },
    json: utf8(JSON.stringify(contents)),
  }, waiting);
}

/** Paths of the visible backups, sorted; every content of every one of them is read and compared. */
async function readBackups(repository: Repository): Promise<string[]> {
  await using session = await repository.openSession(OWNER, waiting);
  const paths: string[] = [];
  for (const { id, labels } of await session.findManifests({ type: "snapshot" }, waiting)) {
    const contents: Record<string, number> = JSON.parse(
      fromUtf8((await session.readManifest(id, waiting)).json),
    );
    for (const [content, n] of Object.entries(contents)) {
      assert.deepEqual(await session.readContent(content, waiting), block(n));
    }
    paths.push(labels.path ?? "");
  }
  return paths.sort();
}

/**
 * The independent reader: every content that the index knows of lies, at the same place, in the local index of its pack.
 */
async function comparePacksWithIndex(place: Place, repository: Repository): Promise<void> {
  const deps = { store: place.store, codec: new ContentCodec(place.format, new SeededRandom(0)) };
  await using session = await repository.openSession(OWNER, waiting);
  let found = 0;
  for await (const { entries, damage } of recoverPacks(deps, waiting)) {
    assert.equal(damage, undefined);
    for (const entry of entries) {
      const info = await session.contentInfo(entry.id, waiting);
      if (info === undefined || info.packBlobId !== entry.packBlobId) continue;
      found++;
      assert.equal(info.packOffset, entry.packOffset);
      assert.equal(info.packedLength, entry.packedLength);
    }
  }
  assert.ok(found > 0 || (await repository.stats(waiting)).contents === 0);
}

/** One flush of the script: the visible backups before it resolved, and after. */
interface Progress {
  confirmed: readonly string[];
  possible: readonly string[];
}

/** Two sessions, shared contents, a removal; three flushes. Updates `progress` as it goes. */
async function script(repository: Repository, progress: Progress): Promise<void> {
  const flush = async (session: RepositorySession, paths: readonly string[]) => {
    progress.possible = paths;
    await session.flush(waiting);
    progress.confirmed = paths;
  };
  await using a = await repository.openSession(OWNER, waiting);
  await using b = await repository.openSession(OWNER, waiting);
  const one = await writeBackup(a, "/one", [1, 2, 3, 4, 5, 6, 7, 8]);
  await writeBackup(b, "/three", [7, 8, 9, 10]);
  await flush(a, ["/one"]);
  await writeBackup(a, "/two", [1, 2, 20, 21, 25, 26]);
  await a.removeManifest(one, waiting);
  await flush(a, ["/two"]);
  await flush(b, ["/three", "/two"]);
}

interface Run {
  readonly progress: Progress;
  /** The fate met an operation of the script; without it the script came to its end undisturbed. */
  readonly wasHit: boolean;
  /** Open, unless the store crashed. */
  readonly repository: Repository;
}

/** Runs the script with a fate for its n-th store operation. */
async function runScript(place: Place, n: number, fate: Fate): Promise<Run> {
  const progress: Progress = { confirmed: [], possible: [] };
  const repository = await open(place, 2);
  const { store } = place;
  const first = store.operations;
  let wasHit = false;
  store.onOperation = ({ number }) => {
    if (number !== first + n) return undefined;
    wasHit = true;
    return fate;
  };
  try {
    await script(repository, progress);
  } catch (error) {
    assert.ok(wasHit && error instanceof AppError, String(error));
  }
  store.onOperation = () => undefined;
  if (store.crashed) await repository.close();
  return { progress, wasHit, repository };
}

function checkVisible(paths: readonly string[], progress: Progress, what: string): void {
  const wanted = [progress.confirmed, progress.possible].map(String);
  assert.ok(wanted.includes(String(paths)), `${what}: saw [${paths}], wanted [${wanted}]`);
}

const OPERATIONS_MIN = 20;
const OPERATIONS_MAX = 200;

for (const outcome of ["lost", "done"] as const) {
  Deno.test(`a crash at any operation (${outcome}) loses nothing flushed and shows nothing half`, async () => {
    for (let n = 1; n < OPERATIONS_MAX; n++) {
      const place = await newPlace();
      const { progress, wasHit, repository: first } = await runScript(place, n, { crash: outcome });
      if (!wasHit) {
        assert.deepEqual(await readBackups(first), ["/three", "/two"]);
        assert.ok(n > OPERATIONS_MIN, `only ${n} operations`);
        return await first.close();
      }
      const after = { ...place, store: place.store.restart() };
      await using repository = await open(after, 3);
      checkVisible(await readBackups(repository), progress, `crash at ${n}`);
      await comparePacksWithIndex(after, repository);
      // And life goes on.
      await using session = await repository.openSession(OWNER, waiting);
      await writeBackup(session, "/later", [1, 9, 30]);
      await session.flush(waiting);
      assert.ok((await readBackups(repository)).includes("/later"));
    }
    assert.fail("the script never came to its end");
  });
}

for (const kind of ["fail", "failAfter"] as const) {
  Deno.test(`a store that fails once (${kind}) breaks at most one session, not the repository`, async () => {
    for (let n = 1; n < OPERATIONS_MAX; n++) {
      const place = await newPlace();
      const error = new AppError("repository", "Use store: out of order");
      const fate: Fate = kind === "fail" ? { fail: error } : { failAfter: error };
      const run = await runScript(place, n, fate);
      const { progress } = run;
      await using repository = run.repository;
      const visible = await readBackups(repository);
      checkVisible(visible, progress, `failure at ${n}`);
      await using session = await repository.openSession(OWNER, waiting);
      await writeBackup(session, "/later", [1, 9, 30]);
      await session.flush(waiting);
      const later = await readBackups(repository);
      assert.deepEqual(later, [...visible, "/later"].sort());
      await repository.close();
      await using reopened = await open(place, 4);
      assert.deepEqual(await readBackups(reopened), later, `reopened after failure at ${n}`);
      if (!run.wasHit) return assert.ok(n > OPERATIONS_MIN, `only ${n} operations`);
    }
    assert.fail("the script never came to its end");
  });
}

/** What the model knows of one open session. */
interface ModelSession {
  readonly session: RepositorySession;
  readonly added: Map<string, string>;
  readonly removed: Set<string>;
}

for (const seed of [1, 2, 3, 4]) {
  Deno.test(`random sessions, flushes and crashes agree with a model (seed ${seed})`, async () => {
    const random = new SeededRandom(seed);
    let place = await newPlace();
    let repository = await open(place, seed * 1000);
    const committed = new Map<string, string>();
    let sessions: ModelSession[] = [];
    let names = 0;
    for (let step = 0; step < 150; step++) {
      const roll = random.float();
      const index = random.integer(0, Math.max(0, sessions.length - 1));
      const model = sessions[index];
      if (model === undefined || (roll < 0.1 && sessions.length < 4)) {
        const session = await repository.openSession(OWNER, waiting);
        sessions.push({ session, added: new Map(), removed: new Set() });
      } else if (roll < 0.5) {
        const path = `/${names++}`;
        const count = random.integer(0, 8);
        const blocks = Array.from({ length: count }, () => random.integer(1, 60));
        model.added.set(await writeBackup(model.session, path, blocks), path);
      } else if (roll < 0.6) {
        const visible = [...committed.keys(), ...model.added.keys()]
          .filter((id) => !model.removed.has(id));
        const id = visible[random.integer(0, Math.max(0, visible.length - 1))];
        if (id === undefined) continue;
        await model.session.removeManifest(id, waiting);
        model.removed.add(id);
      } else if (roll < 0.8) {
        await model.session.flush(waiting);
        for (const [id, path] of model.added) committed.set(id, path);
        for (const id of model.removed) committed.delete(id);
        model.added.clear();
      } else if (roll < 0.87) {
        await model.session[Symbol.asyncDispose]();
        sessions.splice(index, 1);
      } else if (roll < 0.95) {
        assert.deepEqual(await readBackups(repository), [...committed.values()].sort());
      } else {
        if (random.float() < 0.5) {
          const next = place.store.restart(); // a crash: the old process notices nothing any more
          await repository.close();
          place = { ...place, store: next };
        } else {
          await repository.close();
        }
        sessions = [];
        repository = await open(place, seed * 1000 + step + 1);
        assert.deepEqual(await readBackups(repository), [...committed.values()].sort());
      }
    }
    await repository.close();
    repository = await open(place, seed);
    assert.deepEqual(await readBackups(repository), [...committed.values()].sort());
    await comparePacksWithIndex(place, repository);
    await repository.close();
  });
}
