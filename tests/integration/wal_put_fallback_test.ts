/**
 * The streamer's way with servers that serve `klio.wal.v1` alone: our own WAL service without the stream beside it, an
 * archive behind it, and a real PostgreSQL in front.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { WalClient } from "../../src/adapters/grpc/wal_client.ts";
import type { GrpcServer } from "../../src/adapters/grpc/server.ts";
import { createReplicationSource } from "../../src/adapters/postgres/replication_source.ts";
import { SYSTEM_CLOCK, SYSTEM_RANDOM } from "../../src/adapters/process/clock.ts";
import { concat, fromUtf8, utf8 } from "../../src/base/bytes.ts";
import { AppError } from "../../src/base/failure.ts";
import { SILENT } from "../../src/base/log.ts";
import { PutRequest, PutResult, WAL_SERVICE } from "../../src/codec/messages/wal.ts";
import { decode } from "../../src/codec/protobuf/decode.ts";
import { encode } from "../../src/codec/protobuf/encode.ts";
import { type Lsn, lsnAdd, parseLsn, segmentName } from "../../src/domain/lsn.ts";
import {
  STREAM_WAL_DEFAULTS,
  type StreamProgress,
  streamWal,
} from "../../src/features/walstream/mod.ts";
import type { WalServer } from "../../src/ports/wal_server.ts";
import { walService } from "../../src/rpc/wal_v1.ts";
import { wal } from "../support/fake_wal.ts";
import { addressOf, startServer } from "../support/network.ts";
import { startTestCluster } from "../support/postgres.ts";
import { at, MIB, name, ONE, openArchive, TWO, volume } from "../support/wal_archive_world.ts";

const signal = AbortSignal.timeout(240_000);
const waiting = { signal };
const WHO = { cluster: "cluster-a", systemId: "7300000000000000001" };
const OPENING = { ...WHO, timeline: ONE, start: at(5), segmentSizeBytes: MIB };

interface World extends AsyncDisposable {
  readonly archive: WalServer;
  readonly server: GrpcServer;
  readonly client: WalClient;
}

async function startWorld(): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const archive = stack.use(await openArchive(await volume()));
  const server = stack.use(await startServer([walService(archive)]));
  const client = stack.use(
    new WalClient({ server: addressOf(server.port), clock: SYSTEM_CLOCK }),
  );
  const owned = stack.move();
  return { archive, server, client, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function stored(archive: WalServer, file: string): Promise<Buffer> {
  const { blocks } = await archive.get({ cluster: WHO.cluster, name: file }, waiting);
  return Buffer.concat(await Array.fromAsync(blocks));
}

Deno.test("without the stream, a position is acknowledged when its segment is confirmed, the rest at the end", async () => {
  await using world = await startWorld();
  const { archive, client } = world;
  assert.equal(await client.requestStart({ ...WHO, proposal: name(5) }, waiting), name(5));
  await using stream = await client.append(OPENING, waiting);
  assert.equal(stream.confirmsSegmentsOnly, true);
  const positions = stream.acknowledgements()[Symbol.asyncIterator]();
  const step = 300_000;
  for (let offset = 0; offset < 2 * MIB + step; offset += step) {
    await stream.send(at(5, offset), wal(at(5, offset), step), waiting);
  }
  assert.deepEqual(await positions.next(), { done: false, value: at(7) });
  const end = lsnAdd(at(5), 8 * step);
  await stream.finish(waiting);
  assert.deepEqual(await positions.next(), { done: false, value: end });
  assert.equal((await positions.next()).done, true);
  assert.deepEqual(await stored(archive, name(5)), Buffer.from(wal(at(5), MIB)));
  const rest = Number(end - at(7));
  assert.deepEqual(await stored(archive, `${name(7)}.partial`), Buffer.from(wal(at(7), rest)));

  // The same again, from the start of the partial, as after a restart.
  const answer = await client.requestStart({ ...WHO, proposal: name(5) }, waiting);
  assert.equal(answer, name(7));
  await using again = await client.append({ ...OPENING, start: at(7) }, waiting);
  await again.send(at(7), wal(at(7), MIB), waiting);
  await again.finish(waiting);
  assert.deepEqual(await stored(archive, name(7)), Buffer.from(wal(at(7), MIB)));
});

Deno.test("without the stream, WAL that does not follow is refused, and so is a wrong confirmation", async () => {
  const messages: string[] = [];
  await using server = await startServer([{
    name: WAL_SERVICE,
    methods: {
      async Put(call) {
        let sizeBytes = 0;
        for (let message; (message = await call.receive()) !== undefined;) {
          const { walName, walBlock, segmentSize } = decode(PutRequest, message);
          messages.push(`${walName} ${segmentSize} ${walBlock.length}`);
          sizeBytes += walBlock.length;
        }
        const isHistory = messages.at(-1)?.includes("history") ?? false;
        await call.send(encode(PutResult, { writtenSize: isHistory ? sizeBytes : sizeBytes - 1 }));
      },
    },
  }]);
  using client = new WalClient({ server: addressOf(server.port), clock: SYSTEM_CLOCK });
  {
    await using stream = await client.append(OPENING, waiting);
    await assert.rejects(stream.send(at(5, 1), wal(at(5, 1), 10), waiting), { kind: "protocol" });
    await stream.send(at(5), wal(at(5), 1000), waiting);
    await assert.rejects(stream.finish(waiting), { kind: "repository", message: /999 of 1000/ });
  }
  // History as existing clients send it: blocks of 4096 bytes, an empty one at the end.
  messages.length = 0;
  const content = utf8(`1\t0/500000\t${"x".repeat(5000)}\n`);
  await client.putHistory({ ...WHO, timeline: TWO, content }, waiting);
  const size = content.length;
  assert.deepEqual(messages, [
    `00000002.history ${size} 4096`,
    `00000002.history ${size} ${size - 4096}`,
    `00000002.history ${size} 0`,
  ]);
});

Deno.test("without the stream, a history is stored, and a server that goes is noticed while nothing is sent", async () => {
  await using world = await startWorld();
  const { archive, client } = world;
  await client.requestStart({ ...WHO, proposal: name(5) }, waiting);
  const history = "1\t0/500000\tno reason\n";
  await client.putHistory({ ...WHO, timeline: TWO, content: utf8(history) }, waiting);
  assert.equal(fromUtf8(await stored(archive, "00000002.history")), history);
  await using stream = await client.append(OPENING, waiting);
  await stream.send(at(5), wal(at(5), 1000), waiting);
  const positions = stream.acknowledgements()[Symbol.asyncIterator]();
  const refused = assert.rejects(positions.next(), AppError);
  await world.server.close({ timeoutMs: 0 });
  await refused;
  await assert.rejects(stream.send(at(5, 1000), wal(at(5, 1000), 10), waiting), AppError);
});

Deno.test("without the stream, closing in the middle of a segment lets go of everything", async () => {
  await using world = await startWorld();
  await world.client.requestStart({ ...WHO, proposal: name(5) }, waiting);
  const stream = await world.client.append(OPENING, waiting);
  await stream.send(at(5), wal(at(5), 1000), waiting);
  await stream[Symbol.asyncDispose]();
  await stream[Symbol.asyncDispose]();
  await assert.rejects(stream.send(at(5, 1000), concat([]), waiting), { kind: "cancelled" });
});

Deno.test("streamWal() streams to a server without the stream, and lets PostgreSQL shut down", async () => {
  await using test = await startTestCluster({
    signal,
    segmentSizeBytes: MIB,
    settings: { wal_keep_size: "256MB" },
  });
  await using world = await startWorld();
  const { cluster } = test;
  const stopping = new AbortController();
  let last: StreamProgress | undefined;
  let changed = Promise.withResolvers<void>();
  const ended = streamWal(
    {
      source: createReplicationSource({
        connectionString: cluster.connectionString("socket"),
        clock: SYSTEM_CLOCK,
      }),
      server: world.client,
      clock: SYSTEM_CLOCK,
      random: SYSTEM_RANDOM,
      log: SILENT,
      onProgress: (progress) => {
        last = progress;
        changed.resolve();
        changed = Promise.withResolvers<void>();
      },
    },
    { cluster: WHO.cluster, ...STREAM_WAL_DEFAULTS },
    { signal: stopping.signal },
  );
  ended.catch(() => {/* awaited below */});
  const until = async (condition: (progress: StreamProgress) => boolean) => {
    while (last === undefined || !condition(last)) await changed.promise;
  };
  let end: Lsn;
  {
    await using sql = await cluster.connect(waiting);
    await sql.query("create table t as select repeat('x', 90) from generate_series(1, 50000)", {
      signal,
    });
    const [row] = await sql.query("select pg_current_wal_flush_lsn()::text as lsn", waiting);
    end = parseLsn(String(row?.["lsn"]));
  }
  await until((p) => p.received >= end);
  assert.ok(last !== undefined);
  assert.equal(last.durable % BigInt(MIB), 0n, "only whole segments are reported");
  assert.ok(last.reported <= last.durable && last.received - last.durable < MIB);
  // PostgreSQL waits for all it has sent to be flushed: the partial is confirmed for it.
  await cluster.stop(waiting);
  await until((p) => p.durable >= end);
  stopping.abort(new AppError("cancelled", "The test is over"));
  await ended;
  for (let position = last.durable; position > last.durable - 3n * BigInt(MIB);) {
    position = lsnAdd(position, -MIB);
    const file = segmentName(ONE, position, MIB);
    const bytes = await Deno.readFile(`${cluster.dataDirectory}/pg_wal/${file}`);
    assert.equal(Buffer.compare(await stored(world.archive, file), bytes), 0, file);
  }
  const partial = segmentName(ONE, last.durable, MIB);
  const rest = await stored(world.archive, `${partial}.partial`);
  const bytes = await Deno.readFile(`${cluster.dataDirectory}/pg_wal/${partial}`);
  assert.ok(rest.length >= Number(end % BigInt(MIB)));
  assert.equal(Buffer.compare(rest, bytes.subarray(0, rest.length)), 0);
});
