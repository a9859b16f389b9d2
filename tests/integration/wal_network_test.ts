/**
 * The WAL protocols over real sockets: our client and our services with an archive in memory behind them.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Channel } from "../../src/adapters/grpc/channel.ts";
import { WAL_MESSAGE_BYTES_MAX } from "../../src/adapters/grpc/options.ts";
import type { GrpcServer } from "../../src/adapters/grpc/server.ts";
import { WalClient } from "../../src/adapters/grpc/wal_client.ts";
import { SYSTEM_CLOCK, SYSTEM_RANDOM } from "../../src/adapters/process/clock.ts";
import { concat, utf8 } from "../../src/base/bytes.ts";
import { AppError, type FailureKind } from "../../src/base/failure.ts";
import { compressUnit } from "../../src/codec/walfile/unit_frame.ts";
import { AppendRequest, STREAM_SERVICE } from "../../src/codec/messages/stream.ts";
import {
  GetRequest,
  GetResult,
  PutRequest,
  PutResult,
  ResetWalStreamRequest,
  ResetWalStreamResult,
  WAL_SERVICE,
} from "../../src/codec/messages/wal.ts";
import { decode } from "../../src/codec/protobuf/decode.ts";
import { encode } from "../../src/codec/protobuf/encode.ts";
import type { MessageInput } from "../../src/codec/protobuf/schema.ts";
import { type Lsn, lsn, lsnAdd, timelineId } from "../../src/domain/lsn.ts";
import { walStreamService } from "../../src/rpc/wal_stream.ts";
import { walService } from "../../src/rpc/wal_v1.ts";
import { MemoryWalArchive } from "../support/memory_wal_archive.ts";
import { addressOf, endBackoffTimer, startServer } from "../support/network.ts";

const waiting = { signal: new AbortController().signal };
const MIB = 1 << 20;
const IDENTITY = { cluster: "cluster-a", systemId: "7300000000000000001" };
const START = lsn(0x3000000n);
const OPENING = {
  ...IDENTITY,
  timeline: timelineId(1),
  start: START,
  segmentSizeBytes: MIB,
};
const NAME = "000000010000000000000030";
const NEXT_NAME = "000000010000000000000031";

interface World extends AsyncDisposable {
  readonly archive: MemoryWalArchive;
  readonly server: GrpcServer;
  readonly client: WalClient;
  readonly channel: Channel;
}

async function startWorld(): Promise<World> {
  const archive = new MemoryWalArchive();
  await archive.requestStart({ ...IDENTITY, proposal: NAME });
  const server = await startServer([walService(archive), walStreamService(archive)]);
  const options = { server: addressOf(server.port), clock: SYSTEM_CLOCK };
  const client = new WalClient(options);
  const channel = new Channel({ ...options, messageBytesMax: WAL_MESSAGE_BYTES_MAX });
  return {
    archive,
    server,
    client,
    channel,
    async [Symbol.asyncDispose]() {
      client[Symbol.dispose]();
      channel[Symbol.dispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

function failsWith(kind: FailureKind, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.kind, kind, error.message);
    assert.match(error.message, message);
    return true;
  };
}

function sample(sizeBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(sizeBytes);
  for (let i = 0; i < sizeBytes; i++) bytes[i] = i * 7 + (i >> 9);
  return bytes;
}

/** Resolves when `value` has not changed for a while: what was going to happen has happened. */
async function untilSteady(value: () => number): Promise<void> {
  let last = -1;
  while (value() !== last) {
    last = value();
    await SYSTEM_CLOCK.sleep(150, waiting);
  }
}

async function collect(acknowledgements: AsyncIterable<Lsn>): Promise<Lsn[]> {
  const positions: Lsn[] = [];
  for await (const position of acknowledgements) positions.push(position);
  return positions;
}

Deno.test("appended WAL arrives, every byte is acknowledged, positions never go back", async () => {
  await using world = await startWorld();
  await using stream = await world.client.append(OPENING, waiting);
  assert.equal(stream.start, START);
  const acknowledged = collect(stream.acknowledgements());
  const wal = sample(2 * MIB + 5000);
  for (let offset = 0; offset < wal.length; offset += 100_000) {
    const part = wal.slice(offset, offset + 100_000);
    await stream.send(lsnAdd(START, offset), part, waiting);
    part.fill(0); // borrowed only until it resolved
  }
  await stream.finish(waiting);
  const positions = await acknowledged;
  assert.equal(positions.at(-1), lsnAdd(START, wal.length));
  assert.deepEqual(positions, [...positions].sort((a, b) => Number(a - b)));
  assert.deepEqual(world.archive.segments.get(NAME)?.bytes, wal.slice(0, MIB));
  assert.deepEqual(world.archive.segments.get(NEXT_NAME)?.bytes, wal.slice(MIB, 2 * MIB));
});

Deno.test("one send may be larger than a message", async () => {
  await using world = await startWorld();
  await using stream = await world.client.append(OPENING, waiting);
  const wal = sample(20 * MIB + 1);
  await stream.send(START, wal, waiting);
  await stream.finish(waiting);
  assert.equal(world.archive.durable, lsnAdd(START, wal.length));
});

Deno.test("finish() waits until the server has made everything durable", async () => {
  await using world = await startWorld();
  await using stream = await world.client.append(OPENING, waiting);
  world.archive.stall();
  await stream.send(START, sample(1000), waiting);
  let isFinished = false;
  const finished = stream.finish(waiting).then(() => isFinished = true);
  await untilSteady(() => world.archive.notes.length);
  assert.equal(isFinished, false);
  world.archive.resume();
  await finished;
  assert.equal(world.archive.durable, lsnAdd(START, 1000));
});

Deno.test("a stalled archive stops the sender after a bounded number of bytes", async () => {
  await using world = await startWorld();
  await using stream = await world.client.append(OPENING, waiting);
  world.archive.stall();
  const block = SYSTEM_RANDOM.bytes(256 << 10); // does not shrink: what is bounded is what travels
  const total = 128 * MIB;
  let sent = 0;
  const sending = (async () => {
    for (; sent < total; sent += block.length) {
      await stream.send(lsnAdd(START, sent), block, waiting);
    }
  })();
  await untilSteady(() => sent);
  assert.ok(sent < 40 * MIB, `${sent} bytes were taken while the archive stood still`);
  world.archive.resume();
  await sending;
  await stream.finish(waiting);
  assert.equal(world.archive.durable, lsnAdd(START, total));
});

Deno.test("a slow reader stops the server after a bounded number of bytes", async () => {
  await using world = await startWorld();
  const { archive } = world;
  archive.endless = { block: sample(256 << 10), count: 512 };
  const file = await world.client.get({ cluster: IDENTITY.cluster, name: NAME }, waiting);
  await untilSteady(() => archive.blocksRead);
  assert.ok(archive.blocksRead < 160, `${archive.blocksRead} of 512 blocks were read ahead`);
  let received = 0;
  for await (const block of file.blocks) received += block.length;
  assert.equal(received, 128 * MIB);
});

Deno.test("leaving a download early ends it at the server", async () => {
  await using world = await startWorld();
  world.archive.endless = { block: sample(256 << 10), count: 1_000_000 };
  const file = await world.client.get({ cluster: IDENTITY.cluster, name: NAME }, waiting);
  for await (const block of file.blocks) {
    assert.equal(block.length, 256 << 10);
    break;
  }
  await world.server.close({ timeoutMs: 5000 });
  assert.equal(world.server.calls, 0);
});

Deno.test("a failure of the archive reaches the client with kind and hint, at once", async () => {
  await using world = await startWorld();
  await using stream = await world.client.append(OPENING, waiting);
  const acknowledged = collect(stream.acknowledgements());
  await stream.send(START, sample(10), waiting);
  world.archive.breakStream(
    new AppError("exhausted", "Write WAL: kein Platz für 10 bytes", { hint: "freie Plätze: 0 %" }),
  );
  await assert.rejects(acknowledged, (error) => {
    assert.ok(error instanceof AppError);
    assert.deepEqual(
      [error.kind, error.message, error.hint],
      ["exhausted", "Write WAL: kein Platz für 10 bytes", "freie Plätze: 0 %"],
    );
    return true;
  });
  await assert.rejects(stream.send(START, sample(1), waiting), failsWith("exhausted", /kein/));
  await assert.rejects(stream.finish(waiting), failsWith("exhausted", /kein/));
});

Deno.test("a second writer is told, and closing the first makes room", async () => {
  await using world = await startWorld();
  const first = await world.client.append(OPENING, waiting);
  await assert.rejects(world.client.append(OPENING, waiting), failsWith("conflict", /a writer/));
  await first[Symbol.asyncDispose]();
  await first[Symbol.asyncDispose]();
  // The server hears of the cancellation a moment later.
  await untilSteady(() => world.server.calls);
  await using second = await world.client.append(OPENING, waiting);
  await second.finish(waiting);
});

Deno.test("a server that is gone fails the stream, and later calls name the address", async () => {
  const world = await startWorld();
  const stream = await world.client.append(OPENING, waiting);
  const acknowledged = assert.rejects(collect(stream.acknowledgements()));
  await stream.send(START, sample(10), waiting);
  await world.server.close({ timeoutMs: 0 });
  await acknowledged;
  await assert.rejects(stream.finish(waiting));
  await assert.rejects(
    world.client.metadata(IDENTITY.cluster, waiting),
    failsWith("repository", new RegExp(`localhost:${world.server.port}`)),
  );
  await stream[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
  await endBackoffTimer();
});

Deno.test("close() lets a running call finish, and cancels one that does not", async () => {
  await using world = await startWorld();
  const stream = await world.client.append(OPENING, waiting);
  await stream.send(START, sample(10), waiting);
  const closed = world.server.close({ timeoutMs: 60_000 });
  await stream.send(lsnAdd(START, 10), sample(10), waiting);
  await stream.finish(waiting);
  await stream[Symbol.asyncDispose]();
  await closed;
  assert.equal(world.archive.durable, lsnAdd(START, 20));

  await using other = await startWorld();
  await using held = await other.client.append(OPENING, waiting);
  const rejected = assert.rejects(
    collect(held.acknowledgements()),
    failsWith("cancelled", /stopping/),
  );
  await other.server.close({ timeoutMs: 10 });
  await rejected;
});

Deno.test("an abort ends the wait for room and leaves no call behind", async () => {
  await using world = await startWorld();
  const stream = await world.client.append(OPENING, waiting);
  world.archive.stall();
  const controller = new AbortController();
  const reason = new Error("enough");
  let sent = 0;
  const sending = (async () => {
    for (;; sent += MIB) {
      await stream.send(lsnAdd(START, sent), sample(MIB), { signal: controller.signal });
    }
  })();
  await untilSteady(() => sent);
  controller.abort(reason);
  await assert.rejects(sending, (error) => error === reason);
  await stream[Symbol.asyncDispose]();
  await untilSteady(() => world.server.calls);
  assert.equal(world.server.calls, 0);
});

Deno.test("history files are stored, and another content is a conflict", async () => {
  await using world = await startWorld();
  const history = { ...IDENTITY, timeline: timelineId(2), content: utf8("1\t0/3000000\tx\n") };
  await world.client.putHistory(history, waiting);
  await world.client.putHistory(history, waiting);
  assert.deepEqual(world.archive.histories.get("00000002.history"), history.content);
  await assert.rejects(
    world.client.putHistory({ ...history, content: utf8("else") }, waiting),
    failsWith("conflict", /another content/),
  );
});

Deno.test("start negotiation, metadata with gaps, closing a backup", async () => {
  await using world = await startWorld();
  const { client, archive, channel } = world;
  assert.equal(await client.requestStart({ ...IDENTITY, proposal: NAME }, waiting), NAME);
  const otherSystem = { ...IDENTITY, systemId: "1", proposal: NAME };
  await assert.rejects(client.requestStart(otherSystem, waiting), failsWith("conflict", /system/));
  const stream = await client.append(OPENING, waiting);
  await stream.send(START, sample(10), waiting);
  await stream.finish(waiting);
  // A partial is answered as upstream servers do; the client strips the suffix.
  assert.equal(await client.requestStart({ ...IDENTITY, proposal: NEXT_NAME }, waiting), NAME);

  const reset = encode(ResetWalStreamRequest, {
    clusterName: IDENTITY.cluster,
    systemId: IDENTITY.systemId,
    currentWalName: NEXT_NAME,
  });
  const answer = await channel.unary(`/${WAL_SERVICE}/ResetWALStream`, reset, waiting);
  assert.equal(decode(ResetWalStreamResult, answer).walName, NEXT_NAME);
  const metadata = await client.metadata(IDENTITY.cluster, waiting);
  assert.deepEqual(metadata, { systemId: IDENTITY.systemId, gaps: archive.gaps });

  const range = {
    cluster: IDENTITY.cluster,
    backupName: "backup-1",
    timeline: timelineId(0xffff_ffff),
    startWal: NAME,
    endWal: NEXT_NAME,
    segmentSizeBytes: MIB,
  };
  assert.deepEqual(await client.closeBackup(range, waiting), [NEXT_NAME]);
  assert.deepEqual(archive.ranges, [range]);
});

Deno.test("a file is read whole, as a partial, and absent ones are not_found", async () => {
  await using world = await startWorld();
  const stream = await world.client.append(OPENING, waiting);
  const wal = sample(MIB + 1000);
  await stream.send(START, wal, waiting);
  await stream.finish(waiting);
  const read = async (name: string) => {
    const file = await world.client.get({ cluster: IDENTITY.cluster, name }, waiting);
    assert.equal(file.segmentSizeBytes, MIB);
    const blocks: Uint8Array[] = [];
    for await (const block of file.blocks) blocks.push(block);
    return concat(blocks);
  };
  assert.deepEqual(await read(NAME), wal.slice(0, MIB));
  assert.deepEqual(await read(`${NEXT_NAME}.partial`), wal.slice(MIB));
  for (const name of [NEXT_NAME, `${NAME}.partial`, "00000009.history"]) {
    await assert.rejects(read(name), failsWith("not_found", /no such file/));
  }
});

Deno.test("the end mark of a download is an empty block, as existing clients expect", async () => {
  await using world = await startWorld();
  world.archive.endless = { block: sample(9 * MIB), count: 1 };
  const call = world.channel.open(`/${WAL_SERVICE}/Get`, waiting);
  await call.send(encode(GetRequest, { clusterName: "cluster-a", walName: NAME }), waiting);
  call.halfClose();
  const lengths: number[] = [];
  for (let m; (m = await call.receive(waiting)) !== undefined;) {
    const { walBlock, segmentSize } = decode(GetResult, m);
    assert.equal(segmentSize, 1 << 30);
    lengths.push(walBlock.length);
  }
  assert.deepEqual(lengths, [8 * MIB, MIB, 0]);
});

Deno.test("another cluster is refused on every call", async () => {
  await using world = await startWorld();
  const { client, channel } = world;
  const other = { ...IDENTITY, cluster: "cluster-b" };
  const range = { backupName: "b", timeline: timelineId(1), startWal: NAME, endWal: NAME };
  const reset = encode(ResetWalStreamRequest, {
    clusterName: other.cluster,
    systemId: other.systemId,
    currentWalName: NAME,
  });
  const calls = [
    client.requestStart({ ...other, proposal: NAME }, waiting),
    client.append({ ...OPENING, ...other }, waiting),
    client.putHistory({ ...other, timeline: timelineId(2), content: utf8("x") }, waiting),
    client.get({ cluster: other.cluster, name: NAME }, waiting),
    client.metadata(other.cluster, waiting),
    client.closeBackup({ ...other, ...range, segmentSizeBytes: MIB }, waiting),
    channel.unary(`/${WAL_SERVICE}/ResetWALStream`, reset, waiting),
    put(world, [{ clusterName: other.cluster, walName: NAME, segmentSize: MIB }]),
    put(world, [
      { clusterName: IDENTITY.cluster, walName: NAME, segmentSize: MIB },
      { clusterName: other.cluster, walName: NAME, segmentSize: MIB },
    ]),
  ];
  const refused = failsWith("permission", /the certificate is for cluster "cluster-a"/);
  await Promise.all(calls.map((call) => assert.rejects(call, refused)));
});

async function put(
  world: World,
  messages: ReadonlyArray<MessageInput<typeof PutRequest>>,
): Promise<number> {
  const call = world.channel.open(`/${WAL_SERVICE}/Put`, waiting);
  for (const message of messages) await call.send(encode(PutRequest, message), waiting);
  call.halfClose();
  const answer = await call.receive(waiting);
  assert.ok(answer !== undefined);
  assert.equal(await call.receive(waiting), undefined);
  return decode(PutResult, answer).writtenSize;
}

Deno.test("Put stores blocks in order, an empty one at the end, and nothing of nothing", async () => {
  await using world = await startWorld();
  const file = { clusterName: "cluster-a", walName: NAME, segmentSize: MIB };
  const wal = sample(3000);
  const written = await put(world, [
    { ...file, walBlock: wal.subarray(0, 1000), traceId: "t", spanId: "s" },
    { ...file, walBlock: wal.subarray(1000), sendToTier2: true },
    file,
  ]);
  assert.equal(written, 3000);
  assert.deepEqual(world.archive.uploads.get(NAME), wal);
  const history = { clusterName: "cluster-a", walName: "00000002.history", segmentSize: 4 };
  assert.equal(await put(world, [{ ...history, walBlock: utf8("1\t0\n") }]), 4);
  assert.equal(await put(world, []), 0);
});

Deno.test("Put refuses incoherent messages, too many bytes and names that are none", async () => {
  await using world = await startWorld();
  const file = { clusterName: "cluster-a", walName: NAME, segmentSize: MIB };
  const refused: ReadonlyArray<readonly [ReadonlyArray<MessageInput<typeof PutRequest>>, RegExp]> =
    [
      [[file, { ...file, walName: NEXT_NAME }], /different files/],
      [[file, { ...file, segmentSize: 2 * MIB }], /different files/],
      [[{ ...file, walBlock: sample(MIB) }, { ...file, walBlock: sample(1) }], /more than/],
      [[{ ...file, segmentSize: 3 }], /segment size 3/],
      [[{ ...file, walName: `${NAME}.partial` }], /complete name/],
      [[{ ...file, walName: "00000002.history", segmentSize: 0 }], /small file/],
      [[{ ...file, walName: NAME.toLowerCase().replace("3", "a") }], /Parse WAL file name/],
      [[{ ...file, walName: ".." }], /Parse WAL file name/],
      [[{ ...file, clusterName: ".." }], /cluster name/],
      [[{ ...file, clusterName: "" }], /cluster name/],
      [[{ ...file, clusterName: "clüster" }], /cluster name/],
    ];
  for (const [messages, message] of refused) {
    await assert.rejects(put(world, messages), failsWith("usage", message));
  }
  assert.equal(world.archive.uploads.size, 0);
});

Deno.test("a stream that does not begin with open, opens twice or is garbage is refused", async () => {
  await using world = await startWorld();
  const open = {
    kind: "open" as const,
    value: { clusterName: "cluster-a", systemId: "1", timeline: 1, segmentSize: MIB },
  };
  const data = { kind: "data" as const, value: { lsn: 0n, data: sample(10) } };
  const cases = [
    [[encode(AppendRequest, { request: data })], "protocol", /must open/],
    [[encode(AppendRequest, {})], "protocol", /unknown kind/],
    [[Uint8Array.of(0xff, 0xff)], "protocol", /Decode protobuf/],
    [
      [encode(AppendRequest, { request: open }), encode(AppendRequest, { request: open })],
      "protocol",
      /open already/,
    ],
    [
      [encode(AppendRequest, { request: { ...open, value: { ...open.value, startLsn: 5n } } })],
      "usage",
      /start of a segment/,
    ],
    [
      [encode(AppendRequest, { request: { ...open, value: { ...open.value, systemId: "0x1" } } })],
      "usage",
      /system identifier/,
    ],
    [
      [encode(AppendRequest, { request: { ...open, value: { ...open.value, timeline: 0 } } })],
      "usage",
      /timeline/,
    ],
  ] as const;
  for (const [messages, kind, message] of cases) {
    const call = world.channel.open(`/${STREAM_SERVICE}/Append`, waiting);
    for (const one of messages) await call.send(one, waiting);
    await assert.rejects(async () => {
      while (await call.receive(waiting) !== undefined) { /* "opened" may come first */ }
    }, failsWith(kind, message));
  }
});

Deno.test("compressed WAL that is not what it says is refused", async () => {
  await using world = await startWorld();
  const open = {
    clusterName: "cluster-a",
    systemId: IDENTITY.systemId,
    timeline: 1,
    startLsn: START,
    segmentSize: MIB,
  };
  const content = sample(20_000);
  const zstd = compressUnit(content);
  const cases = [
    [{ zstd, size: content.length - 1 }, /unusable/],
    [{ zstd, size: content.length + 1 }, /unusable/],
    [{ zstd: zstd.subarray(1), size: content.length }, /unusable/],
    [{ zstd: sample(100), size: 100 }, /unusable/],
    [{ zstd, size: 0 }, /0 compressed/],
    [{ zstd, size: MIB + 1 }, /compressed bytes/],
    [{ zstd, size: content.length, data: content }, /20000 plain/],
  ] as const;
  for (const [wal, message] of cases) {
    const call = world.channel.open(`/${STREAM_SERVICE}/Append`, waiting);
    const data = { kind: "data" as const, value: { lsn: START, ...wal } };
    await call.send(encode(AppendRequest, { request: { kind: "open", value: open } }), waiting);
    await call.send(encode(AppendRequest, { request: data }), waiting);
    await assert.rejects(async () => {
      while (await call.receive(waiting) !== undefined) { /* "opened" comes first */ }
    }, failsWith("protocol", message));
  }
  assert.equal(world.archive.segments.size, 0);
});

Deno.test("a message beyond the limit is refused as exhausted and hurts nobody else", async () => {
  await using world = await startWorld();
  const file = { clusterName: "cluster-a", walName: NAME, segmentSize: 16 * MIB };
  const big = new Channel({
    server: addressOf(world.server.port),
    clock: SYSTEM_CLOCK,
    messageBytesMax: 64 * MIB,
  });
  const message = encode(PutRequest, { ...file, walBlock: sample(9 * MIB) });
  await assert.rejects(
    big.unary(`/${WAL_SERVICE}/Put`, message, waiting),
    failsWith("exhausted", /larger than max/),
  );
  big[Symbol.dispose]();
  assert.equal((await world.client.metadata("cluster-a", waiting)).systemId, IDENTITY.systemId);
});

Deno.test("a method that is not served says so", async () => {
  await using world = await startWorld();
  await assert.rejects(
    world.channel.unary(`/${WAL_SERVICE}/SetFirstRequiredWAL`, utf8(""), waiting),
    (error) => error instanceof AppError && error.data["grpc"] === 12,
  );
});

Deno.test("a bug at the server shows as one, without its details", async () => {
  await using server = await startServer([{
    name: "test.Bug",
    methods: {
      Bug: () => Promise.reject(new TypeError("secret detail")),
    },
  }]);
  const options = { server: addressOf(server.port), clock: SYSTEM_CLOCK, messageBytesMax: MIB };
  using channel = new Channel(options);
  await assert.rejects(
    channel.unary("/test.Bug/Bug", utf8(""), waiting),
    failsWith("bug", /^Serve call: internal error$/),
  );
});
