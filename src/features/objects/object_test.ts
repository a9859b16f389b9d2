/**
 * Object writer and reader over a repository in memory.
 *
 * @module
 */

import assert from "node:assert/strict";
import { BackupWorld, WAITING } from "../../../tests/support/backup_world.ts";
import { SeededRandom } from "../../../tests/support/seeded_random.ts";
import { type Bytes, concat } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { decodeIndirect } from "../../codec/kopia/indirect.ts";
import type { RepositorySession } from "../../ports/repository_session.ts";
import { ObjectReader } from "./object_reader.ts";
import { ObjectWriter } from "./object_writer.ts";

const PIECE_BYTES = 128 << 10;

function* slices(data: Uint8Array, sizeBytes: number): Generator<Uint8Array> {
  for (let at = 0; at < data.length; at += sizeBytes) yield data.slice(at, at + sizeBytes);
}

function open(world: BackupWorld): {
  session: RepositorySession;
  writer: ObjectWriter;
  reader: ObjectReader;
} {
  const session = world.session();
  return {
    session,
    writer: new ObjectWriter(session, { bytesInFlightMax: 1 << 20 }),
    reader: new ObjectReader(session, { bytesAheadMax: 1 << 20 }),
  };
}

/** A session of which some methods are others. */
function replacing(
  session: RepositorySession,
  methods: Partial<RepositorySession>,
): RepositorySession {
  return {
    parameters: session.parameters,
    contentInfo: (id, options) => session.contentInfo(id, options),
    readContent: (id, options) => session.readContent(id, options),
    writeContent: (content, options) => session.writeContent(content, options),
    findManifests: (labels, options) => session.findManifests(labels, options),
    readManifest: (id, options) => session.readManifest(id, options),
    putManifest: (manifest, options) => session.putManifest(manifest, options),
    removeManifest: (id, options) => session.removeManifest(id, options),
    flush: (options) => session.flush(options),
    [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
    ...methods,
  };
}

const INFO = {
  packedLength: 1,
  originalLength: 1,
  timestampSeconds: 1,
  packBlobId: "p0",
  packOffset: 0,
  formatVersion: 3,
};

async function collect(blocks: AsyncIterable<Bytes>): Promise<Bytes> {
  const parts: Bytes[] = [];
  for await (const block of blocks) parts.push(block);
  return concat(parts);
}

Deno.test("objects of every size around a piece come back, however they are handed over", async () => {
  for (const splitter of ["FIXED-128K", "DYNAMIC-128K-BUZHASH"]) {
    const { writer, reader } = open(new BackupWorld({ splitter }));
    const random = new SeededRandom(1);
    for (const sizeBytes of [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 1_000_000]) {
      const data = random.bytes(sizeBytes);
      const ids = new Set<string>();
      for (const slice of [7001, PIECE_BYTES, 1 << 20]) {
        const { objectId, lengthBytes } = await writer.write(slices(data, slice), WAITING);
        assert.equal(lengthBytes, sizeBytes);
        assert.deepEqual(await collect(reader.read(objectId, WAITING)), data);
        ids.add(objectId);
      }
      assert.equal(ids.size, 1, "the id does not depend on the slices");
    }
  }
});

Deno.test("one piece is a direct object, several are an index whose pieces stock kopia understands", async () => {
  const { writer, reader } = open(new BackupWorld());
  const data = new SeededRandom(2).bytes(PIECE_BYTES + 5);
  const one = await writer.write([data.subarray(0, PIECE_BYTES)], WAITING);
  assert.match(one.objectId, /^[0-9a-f]{32}$/);
  const two = await writer.write([data], WAITING);
  assert.match(two.objectId, /^Ix[0-9a-f]{32}$/);
  const index = await reader.readAll(two.objectId.slice(1), { ...WAITING, sizeBytesMax: 1 << 20 });
  assert.deepEqual(decodeIndirect(index).map(({ start, lengthBytes }) => [start, lengthBytes]), [
    [0, PIECE_BYTES],
    [PIECE_BYTES, 5],
  ]);
  const directory = await writer.write([data], { ...WAITING, prefix: "k" });
  assert.match(directory.objectId, /^Ik[0-9a-f]{32}$/);
});

Deno.test("an index longer than a piece is an indirect object itself", async () => {
  const { writer, reader } = open(new BackupWorld());
  // 2400 equal pieces: an index of about 150 KB, cut in two.
  const piece = new Uint8Array(PIECE_BYTES);
  const pieces = Array.from({ length: 2400 }, () => piece);
  const { objectId, lengthBytes } = await writer.write(pieces, WAITING);
  assert.match(objectId, /^IIx[0-9a-f]{32}$/);
  let readBytes = 0;
  for await (const block of reader.read(objectId, WAITING)) readBytes += block.length;
  assert.equal(readBytes, lengthBytes);
});

Deno.test("contents that the repository has are not sent again, small ones are", async () => {
  const writes: string[] = [];
  const world = new BackupWorld({ onOperation: (operation) => void writes.push(operation) });
  const { writer } = open(world);
  const large = new SeededRandom(3).bytes(50_000);
  await writer.write([large], WAITING);
  await writer.write([large], WAITING);
  assert.deepEqual(writes, ["contentInfo", "writeContent", "contentInfo"]);
  writes.length = 0;
  await writer.write([large.subarray(1)], WAITING);
  await writer.write([large.subarray(1)], WAITING);
  assert.deepEqual(writes, ["writeContent", "writeContent"]);
  assert.deepEqual(writer.statistics, { newBytes: 50_000 + 2 * 49_999, deduplicatedBytes: 50_000 });
});

Deno.test("a content that is marked deleted is written again", async () => {
  const world = new BackupWorld();
  const { session } = open(world);
  let written = 0;
  const marked = replacing(session, {
    contentInfo: (id) => Promise.resolve({ ...INFO, id, deleted: true }),
    writeContent: (content, options) => {
      written++;
      return session.writeContent(content, options);
    },
  });
  const writer = new ObjectWriter(marked, { bytesInFlightMax: 1 << 20 });
  await writer.write([new Uint8Array(60_000)], WAITING);
  assert.equal(written, 1);
});

Deno.test("a repository that names a content differently is refused", async () => {
  const world = new BackupWorld();
  const { session } = open(world);
  const liar = replacing(session, { writeContent: () => Promise.resolve("00".repeat(16)) });
  const writer = new ObjectWriter(liar, { bytesInFlightMax: 1 << 20 });
  await assert.rejects(writer.write([new Uint8Array(5)], WAITING), { kind: "protocol" });
});

Deno.test("bytes in flight stay within the bound, and pieces really are sent in parallel", async () => {
  let flying = 0;
  let most = 0;
  const world = new BackupWorld({
    onOperation: async (operation) => {
      if (operation !== "writeContent") return;
      most = Math.max(most, ++flying);
      for (let turn = 0; turn < 20; turn++) await Promise.resolve();
      flying--;
    },
  });
  const writer = new ObjectWriter(world.session(), { bytesInFlightMax: 3 * PIECE_BYTES });
  await writer.write([new SeededRandom(4).bytes(20 * PIECE_BYTES)], WAITING);
  assert.equal(most, 3);
});

Deno.test("a failing or aborted write rejects with its reason and leaves nothing running", async () => {
  const reason = new AppError("repository", "Write content: the disk is gone");
  let writes = 0;
  const world = new BackupWorld({
    onOperation: (operation) => {
      if (operation === "writeContent" && ++writes === 3) throw reason;
    },
  });
  const { writer } = open(world);
  const data = new SeededRandom(5).bytes(20 * PIECE_BYTES);
  await assert.rejects(writer.write([data], WAITING), reason);
  assert.ok(writes < 20, "the rest was not tried");
  const controller = new AbortController();
  const blocks = function* () {
    yield data;
    controller.abort(reason);
    yield data;
  };
  await assert.rejects(writer.write(blocks(), controller), reason);
});

Deno.test("the reader refuses contents of another hash or length, holes and endless nesting", async () => {
  const world = new BackupWorld();
  const { session, writer, reader } = open(world);
  const data = new SeededRandom(6).bytes(300_000);
  const { objectId } = await writer.write([data], WAITING);
  const put = async (text: string) =>
    (await writer.write([new TextEncoder().encode(text)], { ...WAITING, prefix: "x" })).objectId;
  const small = await writer.write([new Uint8Array([1, 2, 3])], WAITING);
  const short = await put(
    `{"stream":"kopia:indirect","entries":[{"l":4,"o":"${small.objectId}"}]}`,
  );
  const other = await put('{"stream":"else","entries":[]}');
  const nested = await put(`{"stream":"kopia:indirect","entries":[{"l":9,"o":"I${short}"}]}`);
  for (const id of [`I${short}`, `I${other}`, `I${nested}`]) {
    await assert.rejects(collect(reader.read(id, WAITING)), { kind: "corruption" }, id);
  }
  let deep = await put('{"stream":"kopia:indirect","entries":[]}');
  for (let level = 0; level < 20; level++) {
    deep = await put(`{"stream":"kopia:indirect","entries":[{"o":"I${deep}"}]}`);
  }
  await assert.rejects(collect(reader.read(`I${deep}`, WAITING)), { message: /nested deeper/ });
  await assert.rejects(collect(reader.read("no id", WAITING)), { kind: "protocol" });
  await assert.rejects(collect(reader.read(`Z${small.objectId}`, WAITING)), { kind: "config" });
  await assert.rejects(collect(reader.read("00".repeat(16), WAITING)), { kind: "not_found" });
  // The port promises corruption for damage it notices; the reader must notice what a broken peer sends.
  const liar = replacing(session, {
    readContent: async (id, options) => (await session.readContent(id, options)).map((b) => b ^ 1),
  });
  const deceived = new ObjectReader(liar, { bytesAheadMax: 1 });
  await assert.rejects(collect(deceived.read(small.objectId, WAITING)), { kind: "corruption" });
  await assert.rejects(
    reader.readAll(objectId, { ...WAITING, sizeBytesMax: data.length - 1 }),
    { kind: "corruption" },
  );
});

Deno.test("a consumer that leaves early ends the reading", async () => {
  let reads = 0;
  const world = new BackupWorld({
    onOperation: (operation) => void (operation === "readContent" && reads++),
  });
  const session = world.session();
  const writer = new ObjectWriter(session, { bytesInFlightMax: 1 << 20 });
  const reader = new ObjectReader(session, { bytesAheadMax: 2 * PIECE_BYTES });
  const { objectId } = await writer.write([new SeededRandom(7).bytes(20 * PIECE_BYTES)], WAITING);
  for await (const block of reader.read(objectId, WAITING)) {
    assert.equal(block.length, PIECE_BYTES);
    break;
  }
  assert.ok(reads <= 1 + 3, `${reads} reads`);
});
