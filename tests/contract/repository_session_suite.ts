/**
 * What every {@link RepositorySession} promises, as one suite: run against the in-memory fake, the real repository and the
 * network client. An implementation hands in a factory of an empty repository; each test gets its own.
 *
 * @module
 */

import assert from "node:assert/strict";
import { concat, fromUtf8, utf8 } from "../../src/base/bytes.ts";
import { isKind } from "../../src/base/failure.ts";
import type { SessionOwner } from "../../src/features/repository/authorization.ts";
import type { Labels, RepositorySession } from "../../src/ports/repository_session.ts";

/** An empty repository and the means to open sessions with it; disposing closes everything. */
export interface RepositoryUnderTest extends AsyncDisposable {
  openSession(owner: SessionOwner): Promise<RepositorySession>;
}

const OWNER: SessionOwner = { user: "klio", host: "cluster-a" };
const SAME_HOST: SessionOwner = { user: "reader", host: "cluster-a" };
const OTHER_HOST: SessionOwner = { user: "klio", host: "cluster-b" };
const ZSTD_FASTEST = 0x1101;
const ABSENT = "00112233445566778899aabbccddeeff";

function snapshotLabels(path: string, owner: SessionOwner = OWNER): Labels {
  return { type: "snapshot", username: owner.user, hostname: owner.host, path };
}

/** Compressible and different for each `seed`. */
function sample(sizeBytes: number, seed: number): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(sizeBytes);
  for (let i = 0; i < sizeBytes; i++) data[i] = (i % 97) ^ (i >> 12) ^ seed;
  return data;
}

/** Registers the suite under `name`. */
export function testRepositorySession(
  name: string,
  create: () => Promise<RepositoryUnderTest>,
): void {
  const signal = new AbortController().signal;
  const waiting = { signal };

  function test(what: string, body: (repository: RepositoryUnderTest) => Promise<void>): void {
    Deno.test(`${name}: ${what}`, async () => {
      await using repository = await create();
      await body(repository);
    });
  }

  test("parameters name a hash, a secret and a splitter", async (repository) => {
    await using session = await repository.openSession(OWNER);
    assert.match(session.parameters.hashFunction, /^HMAC-SHA256/);
    assert.ok(session.parameters.hmacSecret.length >= 16);
    assert.match(session.parameters.splitter, /^(FIXED|DYNAMIC)/);
  });

  test("a written content is read back before and after flush, by others only after", async (repository) => {
    await using writer = await repository.openSession(OWNER);
    await using reader = await repository.openSession(SAME_HOST);
    const data = sample(70_000, 1);
    const id = await writer.writeContent({ prefix: "", data, compression: ZSTD_FASTEST }, waiting);
    assert.match(id, /^[0-9a-f]{32}$/);
    assert.deepEqual(await writer.readContent(id, waiting), data);
    assert.equal(await reader.contentInfo(id, waiting), undefined);
    await assert.rejects(reader.readContent(id, waiting), (e) => isKind(e, "not_found"));
    await writer.flush(waiting);
    assert.deepEqual(await writer.readContent(id, waiting), data);
    assert.deepEqual(await reader.readContent(id, waiting), data);
    const info = await reader.contentInfo(id, waiting);
    assert.equal(info?.id, id);
    assert.equal(info?.originalLength, data.length);
    assert.equal(info?.deleted, false);
  });

  test("the same bytes get the same id, other bytes and other prefixes another", async (repository) => {
    await using session = await repository.openSession(OWNER);
    const write = (prefix: string, data: Uint8Array) =>
      session.writeContent({ prefix, data, compression: 0 }, waiting);
    const plain = await write("", sample(100, 1));
    assert.equal(await write("", sample(100, 1)), plain);
    await session.flush(waiting);
    assert.equal(await write("", sample(100, 1)), plain);
    assert.notEqual(await write("", sample(100, 2)), plain);
    assert.equal(await write("k", sample(100, 1)), `k${plain}`);
  });

  test("a content may be empty, and is borrowed only until the write resolves", async (repository) => {
    await using session = await repository.openSession(OWNER);
    const empty = await session.writeContent(
      { prefix: "", data: new Uint8Array(0), compression: ZSTD_FASTEST },
      waiting,
    );
    const buffer = sample(1000, 3);
    const id = await session.writeContent({ prefix: "", data: buffer, compression: 0 }, waiting);
    buffer.fill(0);
    assert.deepEqual(await session.readContent(id, waiting), sample(1000, 3));
    assert.equal((await session.readContent(empty, waiting)).length, 0);
    await session.flush(waiting);
    assert.deepEqual(await session.readContent(id, waiting), sample(1000, 3));
    assert.equal((await session.readContent(empty, waiting)).length, 0);
  });

  test("bytes handed out are owned: changing them changes nothing stored", async (repository) => {
    await using session = await repository.openSession(OWNER);
    const json = utf8('{"a":1}');
    const content = { prefix: "", data: sample(500, 4), compression: 0 };
    const id = await session.writeContent(content, waiting);
    const manifest = await session.putManifest({ labels: snapshotLabels("/x"), json }, waiting);
    for (const flushed of [false, true]) {
      if (flushed) await session.flush(waiting);
      (await session.readContent(id, waiting)).fill(9);
      (await session.readManifest(manifest, waiting)).json.fill(9);
      assert.deepEqual(await session.readContent(id, waiting), sample(500, 4));
      assert.deepEqual((await session.readManifest(manifest, waiting)).json, json);
    }
  });

  test("an absent content is undefined or not_found, with and without prefix", async (repository) => {
    await using session = await repository.openSession(OWNER);
    assert.equal(await session.contentInfo(ABSENT, waiting), undefined);
    assert.equal(await session.contentInfo(`k${ABSENT}`, waiting), undefined);
    await assert.rejects(session.readContent(ABSENT, waiting), (e) => isKind(e, "not_found"));
    await assert.rejects(
      session.readContent(`k${ABSENT}`, waiting),
      (e) => isKind(e, "not_found"),
    );
  });

  test("contents of two sessions meet, whichever flushes first", async (repository) => {
    await using a = await repository.openSession(OWNER);
    await using b = await repository.openSession(OTHER_HOST);
    const shared = { prefix: "", data: sample(60_000, 5), compression: ZSTD_FASTEST };
    const id = await a.writeContent(shared, waiting);
    assert.equal(await b.writeContent(shared, waiting), id);
    await b.flush(waiting);
    await a.flush(waiting);
    assert.deepEqual(await a.readContent(id, waiting), shared.data);
    assert.deepEqual(await b.readContent(id, waiting), shared.data);
  });

  test("what was not flushed is gone when the session closes", async (repository) => {
    const session = await repository.openSession(OWNER);
    const id = await session.writeContent(
      { prefix: "", data: sample(300, 6), compression: 0 },
      waiting,
    );
    const manifest = await session.putManifest(
      { labels: snapshotLabels("/x"), json: utf8("{}") },
      waiting,
    );
    await session[Symbol.asyncDispose]();
    await session[Symbol.asyncDispose]();
    await assert.rejects(session.flush(waiting));
    await using later = await repository.openSession(OWNER);
    assert.equal(await later.contentInfo(id, waiting), undefined);
    await assert.rejects(later.readManifest(manifest, waiting), (e) => isKind(e, "not_found"));
    assert.deepEqual(await later.findManifests({ type: "snapshot" }, waiting), []);
  });

  test("many contents in flight at once all arrive", async (repository) => {
    await using session = await repository.openSession(OWNER);
    const blocks = Array.from({ length: 40 }, (_, i) => sample(20_000 + i, i));
    const ids = await Promise.all(
      blocks.map((data) =>
        session.writeContent({ prefix: "", data, compression: ZSTD_FASTEST }, waiting)
      ),
    );
    await session.flush(waiting);
    const read = await Promise.all(ids.map((id) => session.readContent(id, waiting)));
    assert.deepEqual(read, blocks);
  });

  test("flush without anything written, and flush twice, do no harm", async (repository) => {
    await using session = await repository.openSession(OWNER);
    await session.flush(waiting);
    await session.putManifest({ labels: snapshotLabels("/x"), json: utf8("{}") }, waiting);
    await session.flush(waiting);
    await session.flush(waiting);
    assert.equal((await session.findManifests({ type: "snapshot" }, waiting)).length, 1);
  });

  test("a manifest keeps its labels and document, visible to others after flush", async (repository) => {
    await using writer = await repository.openSession(OWNER);
    await using reader = await repository.openSession(SAME_HOST);
    const labels = { ...snapshotLabels("/pg data/ü"), "tag:klio.io/tag": "backup-1" };
    const json = utf8('{"lsn":9223372036854775807,"text":"<é>"}');
    const id = await writer.putManifest({ labels, json }, waiting);
    const own = await writer.readManifest(id, waiting);
    assert.deepEqual(own.json, json);
    await assert.rejects(reader.readManifest(id, waiting), (e) => isKind(e, "not_found"));
    assert.deepEqual(await reader.findManifests({ type: "snapshot" }, waiting), []);
    await writer.flush(waiting);
    const manifest = await reader.readManifest(id, waiting);
    assert.equal(manifest.id, id);
    assert.deepEqual({ ...manifest.labels }, labels);
    assert.equal(fromUtf8(manifest.json), fromUtf8(json));
    assert.equal(manifest.length, json.length);
    assert.equal(manifest.modifiedNs, own.modifiedNs);
    const found = await reader.findManifests({ "tag:klio.io/tag": "backup-1" }, waiting);
    assert.deepEqual(found.map((m) => [m.id, m.modifiedNs, m.length]), [
      [id, manifest.modifiedNs, json.length],
    ]);
  });

  test("manifests are found by every wanted label, oldest first", async (repository) => {
    await using session = await repository.openSession(OWNER);
    const put = (path: string) =>
      session.putManifest({ labels: snapshotLabels(path), json: utf8("{}") }, waiting);
    const first = await put("/a");
    const second = await put("/b");
    await session.flush(waiting);
    const third = await put("/a");
    const find = async (labels: Labels) =>
      (await session.findManifests(labels, waiting)).map((m) => m.id);
    assert.deepEqual(await find({ type: "snapshot" }), [first, second, third]);
    assert.deepEqual(await find({ type: "snapshot", path: "/a" }), [first, third]);
    assert.deepEqual(await find({ type: "snapshot", path: "/c" }), []);
    assert.deepEqual(await find({ type: "snapshot", path: "/a", nothing: "x" }), []);
  });

  test("a removed manifest is gone, for others after flush", async (repository) => {
    await using session = await repository.openSession(OWNER);
    await using other = await repository.openSession(OWNER);
    const put = (path: string) =>
      session.putManifest({ labels: snapshotLabels(path), json: utf8("{}") }, waiting);
    const kept = await put("/kept");
    const committed = await put("/committed");
    await session.flush(waiting);
    const pending = await put("/pending");
    await session.removeManifest(committed, waiting);
    await session.removeManifest(pending, waiting);
    const ids = async (of: RepositorySession) =>
      (await of.findManifests({ type: "snapshot" }, waiting)).map((m) => m.id);
    assert.deepEqual(await ids(session), [kept]);
    assert.deepEqual(await ids(other), [kept, committed]);
    await session.flush(waiting);
    assert.deepEqual(await ids(other), [kept]);
    for (const id of [committed, pending, ABSENT]) {
      await assert.rejects(other.readManifest(id, waiting), (e) => isKind(e, "not_found"));
      await assert.rejects(other.removeManifest(id, waiting), (e) => isKind(e, "not_found"));
    }
  });

  test("a document that is not JSON and a missing type are refused", async (repository) => {
    await using session = await repository.openSession(OWNER);
    const { type: _, ...untyped } = snapshotLabels("/x");
    for (const json of ["", "{", "{}{}", "nonsense"]) {
      await assert.rejects(
        session.putManifest({ labels: snapshotLabels("/x"), json: utf8(json) }, waiting),
        (e) => isKind(e, "protocol"),
      );
    }
    await assert.rejects(session.putManifest({ labels: untyped, json: utf8("{}") }, waiting));
    await session.flush(waiting);
    assert.deepEqual(await session.findManifests({ type: "snapshot" }, waiting), []);
  });

  test("manifests of another host are neither seen nor changed", async (repository) => {
    await using a = await repository.openSession(OWNER);
    await using b = await repository.openSession(OTHER_HOST);
    const id = await a.putManifest({ labels: snapshotLabels("/x"), json: utf8("{}") }, waiting);
    await a.flush(waiting);
    assert.deepEqual(await b.findManifests({ type: "snapshot" }, waiting), []);
    assert.deepEqual(await b.findManifests({ hostname: OWNER.host }, waiting), []);
    const refused = (e: unknown) => isKind(e, "permission");
    await assert.rejects(b.readManifest(id, waiting), refused);
    await assert.rejects(b.removeManifest(id, waiting), refused);
    await assert.rejects(
      b.putManifest({ labels: snapshotLabels("/x"), json: utf8("{}") }, waiting),
      refused,
    );
    assert.equal((await a.findManifests({ type: "snapshot" }, waiting)).length, 1);
  });

  test("a user of the same host reads but does not change", async (repository) => {
    await using owner = await repository.openSession(OWNER);
    await using reader = await repository.openSession(SAME_HOST);
    const id = await owner.putManifest({ labels: snapshotLabels("/x"), json: utf8("{}") }, waiting);
    await owner.flush(waiting);
    assert.equal((await reader.findManifests({ type: "snapshot" }, waiting)).length, 1);
    assert.equal((await reader.readManifest(id, waiting)).id, id);
    await assert.rejects(reader.removeManifest(id, waiting), (e) => isKind(e, "permission"));
  });

  test("manifest contents and server manifests cannot be forged", async (repository) => {
    await using session = await repository.openSession(OWNER);
    await assert.rejects(
      session.writeContent({ prefix: "m", data: utf8("x"), compression: 0 }, waiting),
      (e) => isKind(e, "permission"),
    );
    const labels = { type: "user", username: "klio", hostname: "cluster-a" };
    await assert.rejects(
      session.putManifest({ labels, json: utf8("{}") }, waiting),
      (e) => isKind(e, "permission"),
    );
  });

  test("a prefix outside g to z is refused", async (repository) => {
    await using session = await repository.openSession(OWNER);
    for (const prefix of ["a", "kk", "K", "1", "/"]) {
      await assert.rejects(
        session.writeContent({ prefix, data: utf8("x"), compression: 0 }, waiting),
        (e) => isKind(e, "protocol"),
      );
    }
  });

  test("an aborted signal stops every call, and the session lives on", async (repository) => {
    await using session = await repository.openSession(OWNER);
    const reason = new Error("enough");
    const aborted = { signal: AbortSignal.abort(reason) };
    const content = { prefix: "", data: concat([utf8("x")]), compression: 0 };
    const labels = snapshotLabels("/x");
    const calls: Array<() => Promise<unknown>> = [
      () => session.contentInfo(ABSENT, aborted),
      () => session.readContent(ABSENT, aborted),
      () => session.writeContent(content, aborted),
      () => session.findManifests(labels, aborted),
      () => session.readManifest(ABSENT, aborted),
      () => session.putManifest({ labels, json: utf8("{}") }, aborted),
      () => session.removeManifest(ABSENT, aborted),
      () => session.flush(aborted),
    ];
    for (const call of calls) await assert.rejects(call(), (e) => e === reason);
    const id = await session.writeContent(content, waiting);
    await session.flush(waiting);
    assert.deepEqual(await session.readContent(id, waiting), content.data);
    assert.deepEqual(await session.findManifests(labels, waiting), []);
  });
}
