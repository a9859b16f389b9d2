/**
 * Peers that are slow, stand still, vanish without a word, or lose what they need: our server and our streamer over real
 * sockets and a proxy that goes half-open, with a disk in memory that fails on demand. What must hold each time: nothing is
 * acknowledged that is not stored, what waits is bounded, PostgreSQL keeps hearing of us as long as the stream lives, and
 * all goes on by itself when the cause is gone.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Channel } from "../../src/adapters/grpc/channel.ts";
import { type Keepalive, WAL_MESSAGE_BYTES_MAX } from "../../src/adapters/grpc/options.ts";
import type { GrpcServer } from "../../src/adapters/grpc/server.ts";
import { WalClient } from "../../src/adapters/grpc/wal_client.ts";
import { SYSTEM_CLOCK } from "../../src/adapters/process/clock.ts";
import { deadline } from "../../src/base/abort.ts";
import { concat, utf8 } from "../../src/base/bytes.ts";
import { AppError, type FailureKind, isKind } from "../../src/base/failure.ts";
import { SILENT } from "../../src/base/log.ts";
import { PutRequest, WAL_SERVICE } from "../../src/codec/messages/wal.ts";
import { encode } from "../../src/codec/protobuf/encode.ts";
import { type Lsn, lsn, lsnAdd, segmentName, timelineId } from "../../src/domain/lsn.ts";
import type { WalArchive } from "../../src/features/walarchive/mod.ts";
import {
  STREAM_WAL_DEFAULTS,
  type StreamProgress,
  streamWal,
} from "../../src/features/walstream/mod.ts";
import type { WalServer } from "../../src/ports/wal_server.ts";
import { walStreamService } from "../../src/rpc/wal_stream.ts";
import { walService } from "../../src/rpc/wal_v1.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { HalfOpenProxy } from "../support/half_open_proxy.ts";
import type { Operation } from "../support/memory_faults.ts";
import { MemoryPrimary } from "../support/memory_primary.ts";
import { MemoryWalArchive } from "../support/memory_wal_archive.ts";
import { addressOf, endBackoffTimer, startServer } from "../support/network.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { StallingFiles } from "../support/stalling_files.ts";
import { openArchive, ROOT } from "../support/wal_archive_world.ts";

const WAIT = { signal: new AbortController().signal };
const MIB = 1 << 20;
const CLUSTER = "cluster-a";
const STATUS_INTERVAL_MS = 30;
/** Much shorter than in production, and of the same kind. */
const KEEPALIVE: Keepalive = { intervalMs: 300, timeoutMs: 300 };
/** Both times of {@link KEEPALIVE}, a ping that had just been answered, and a busy machine. */
const NOTICED_MS_MAX = 5000;
const OVER = new AppError("cancelled", "The test is over");
const WHO = { cluster: CLUSTER, systemId: "7000000000000000001" };
const OPENING = {
  ...WHO,
  timeline: timelineId(1),
  start: lsn(5n << 20n),
  segmentSizeBytes: MIB,
};

/** A server over an archive on a disk of ours, and a proxy in front of it. */
class ServerWorld implements AsyncDisposable {
  readonly files: StallingFiles;
  readonly archive: WalArchive;
  readonly server: GrpcServer;
  readonly proxy: HalfOpenProxy;
  readonly #stack: AsyncDisposableStack;

  private constructor(
    parts: Pick<ServerWorld, "files" | "archive" | "server" | "proxy">,
    stack: AsyncDisposableStack,
  ) {
    ({
      files: this.files,
      archive: this.archive,
      server: this.server,
      proxy: this.proxy,
    } = parts);
    this.#stack = stack;
  }

  static async start(): Promise<ServerWorld> {
    await using stack = new AsyncDisposableStack();
    const files = new StallingFiles();
    await files.makeDirectory(ROOT);
    await files.writeFileAtomic(`${ROOT}/wal.key`, utf8("stands for the key"));
    const archive = stack.use(await openArchive(files));
    const services = [walService(archive), walStreamService(archive)];
    const server = stack.use(await startServer(services, { keepalive: KEEPALIVE }));
    const proxy = stack.use(new HalfOpenProxy(server.port));
    return new ServerWorld({ files, archive, server, proxy }, stack.move());
  }

  client(port = this.proxy.port): WalClient {
    return new WalClient({ server: addressOf(port), clock: SYSTEM_CLOCK, keepalive: KEEPALIVE });
  }

  /** All WAL in the archive is what the primary wrote; the end of it. */
  async checkStored(): Promise<Lsn> {
    let end = OPENING.start;
    for (;; end = lsnAdd(end, MIB)) {
      const name = segmentName(OPENING.timeline, end, MIB);
      const content = await this.#read(`${name}.partial`);
      if (content === undefined) return end;
      for (let i = 0; i < content.length; i++) {
        if (content[i] === MemoryPrimary.byteAt(1, Number(end) + i)) continue;
        assert.fail(`${name} differs at ${i}`);
      }
      if (content.length < MIB) return lsnAdd(end, content.length);
    }
  }

  async #read(name: string): Promise<Uint8Array | undefined> {
    try {
      const file = await this.archive.get({ cluster: CLUSTER, name }, WAIT);
      const blocks: Uint8Array[] = [];
      for await (const block of file.blocks) blocks.push(block);
      return concat(blocks);
    } catch (error) {
      if (isKind(error, "not_found")) return undefined;
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.files.resume();
    this.files.clearFault();
    await this.#stack.disposeAsync();
    await endBackoffTimer();
  }
}

/** A streamer from a primary in memory to a server. */
class Streamer implements AsyncDisposable {
  readonly primary = new MemoryPrimary();
  progress: StreamProgress | undefined;
  readonly #stopping = new AbortController();
  readonly #ended: Promise<void>;

  constructor(server: WalServer, clock: FakeClock | typeof SYSTEM_CLOCK = SYSTEM_CLOCK) {
    this.primary.slot = { restartLsn: OPENING.start, restartTimeline: OPENING.timeline };
    this.#ended = streamWal({
      source: this.primary,
      server,
      clock,
      random: new SeededRandom(1),
      log: SILENT,
      onProgress: (progress) => {
        this.progress = progress;
        this.primary.change();
      },
    }, {
      ...STREAM_WAL_DEFAULTS,
      cluster: CLUSTER,
      statusIntervalMs: STATUS_INTERVAL_MS,
      drainTimeoutMs: 2000,
      backoff: { firstMs: 10, maxMs: 50 },
    }, { signal: this.#stopping.signal });
    this.#ended.catch(() => this.primary.change());
  }

  get failures(): number {
    return this.progress?.failures ?? 0;
  }

  get flushed(): Lsn {
    return this.primary.statuses.at(-1)?.flush ?? lsn(0n);
  }

  /** Until it holds; fails when the streamer has ended for good or nothing happens for long. */
  async until(condition: () => boolean, timeoutMs = 20_000): Promise<void> {
    using limit = deadline({ timeoutMs, what: "Wait for the streamer" });
    await this.primary.until(() => {
      if (this.progress?.state === "failed") assert.fail(this.progress.lastError);
      return condition();
    }, limit);
  }

  /** Until PostgreSQL has heard that all it has is durable. */
  async untilCaughtUp(timeoutMs?: number): Promise<void> {
    await this.until(() => this.flushed === this.primary.end, timeoutMs);
  }

  /** Until PostgreSQL has heard of us so many times more. */
  async untilStatuses(count: number): Promise<void> {
    const wanted = this.primary.statuses.length + count;
    await this.until(() => this.primary.statuses.length >= wanted);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort(OVER);
    await this.#ended;
  }
}

/** Waits for what no event tells. */
async function eventually(what: string, condition: () => boolean): Promise<void> {
  using limit = deadline({ timeoutMs: NOTICED_MS_MAX, what });
  while (!condition()) await SYSTEM_CLOCK.sleep(10, limit);
}

Deno.test("streaming over a connection that goes half-open: noticed in bounded time, goes on by itself", async () => {
  await using world = await ServerWorld.start();
  using client = world.client();
  await using streamer = new Streamer(client);
  streamer.primary.write(2 * MIB + 5000);
  await streamer.untilCaughtUp();
  const before = streamer.flushed;
  world.proxy.freeze();
  streamer.primary.write(100_000);
  const frozenAtMs = SYSTEM_CLOCK.monotonicMs();
  // PostgreSQL goes on hearing of us, and hears nothing that is not so.
  await streamer.untilStatuses(4);
  assert.equal(streamer.failures, 0, "the outage has not been noticed yet");
  assert.equal(streamer.flushed, before);
  await streamer.untilCaughtUp(NOTICED_MS_MAX);
  assert.ok(SYSTEM_CLOCK.monotonicMs() - frozenAtMs >= KEEPALIVE.timeoutMs);
  assert.ok(streamer.failures > 0);
  assert.equal(await world.checkStored(), streamer.primary.end);
  await eventually("The server forgets the dead call", () => world.server.calls === 1);
});

Deno.test("a short outage of the network costs nothing but time", async () => {
  await using world = await ServerWorld.start();
  using client = world.client();
  await using streamer = new Streamer(client);
  streamer.primary.write(5000);
  await streamer.untilCaughtUp();
  world.proxy.freeze();
  streamer.primary.write(100_000);
  await streamer.untilStatuses(3);
  world.proxy.thaw();
  await streamer.untilCaughtUp();
  assert.equal(streamer.failures, 0);
});

Deno.test("a writer that vanished gives its place up in bounded time: stream and upload", async () => {
  await using world = await ServerWorld.start();
  using direct = world.client(world.server.port);
  await direct.requestStart({ ...WHO, proposal: "000000010000000000000005" }, WAIT);
  const takePlace = async () => {
    for (;;) {
      try {
        return await direct.append(OPENING, WAIT);
      } catch (error) {
        assert.ok(isKind(error, "conflict"), String(error));
      }
      await SYSTEM_CLOCK.sleep(20, WAIT);
    }
  };
  for (const kind of ["stream", "upload"] as const) {
    using client = world.client();
    using channel = new Channel({
      server: addressOf(world.proxy.port),
      clock: SYSTEM_CLOCK,
      messageBytesMax: WAL_MESSAGE_BYTES_MAX,
      keepalive: KEEPALIVE,
    });
    let giveUp: () => unknown;
    if (kind === "stream") {
      const stream = await client.append(OPENING, WAIT);
      giveUp = () => stream[Symbol.asyncDispose]();
    } else {
      const put = channel.open(`/${WAL_SERVICE}/Put`, WAIT);
      const message = {
        clusterName: CLUSTER,
        walName: "000000010000000000000005",
        segmentSize: MIB,
        walBlock: new Uint8Array(1000),
      };
      await put.send(encode(PutRequest, message), WAIT);
      giveUp = () => put.cancel();
      await eventually("The upload begins", () => world.server.calls === 1);
      await direct.metadata(CLUSTER, WAIT);
    }
    world.proxy.freeze();
    const startedMs = SYSTEM_CLOCK.monotonicMs();
    const mine = await takePlace();
    const tookMs = SYSTEM_CLOCK.monotonicMs() - startedMs;
    assert.ok(tookMs < NOTICED_MS_MAX, `the place of the ${kind} was free after ${tookMs} ms`);
    await mine[Symbol.asyncDispose]();
    await giveUp();
    await eventually("The server sees the end", () => world.server.calls === 0);
  }
});

Deno.test("a client notices that its server vanished: a stream, and a connection without calls", async () => {
  await using world = await ServerWorld.start();
  using client = world.client();
  await client.requestStart({ ...WHO, proposal: "000000010000000000000005" }, WAIT);
  {
    await using stream = await client.append(OPENING, WAIT);
    world.proxy.freeze();
    const ended = (async () => {
      for await (const position of stream.acknowledgements()) assert.fail(String(position));
    })();
    await assert.rejects(ended, (error) => isKind(error, "repository"));
  }
  // The dead connection was closed without a call, so the next call is not its victim.
  await client.metadata(CLUSTER, WAIT);
  const idle = world.proxy.connections;
  world.proxy.freeze();
  await SYSTEM_CLOCK.sleep(KEEPALIVE.intervalMs + KEEPALIVE.timeoutMs + 300, WAIT);
  const startedMs = SYSTEM_CLOCK.monotonicMs();
  assert.equal((await client.metadata(CLUSTER, WAIT)).systemId, WHO.systemId);
  assert.ok(SYSTEM_CLOCK.monotonicMs() - startedMs < KEEPALIVE.timeoutMs);
  assert.ok(idle > 0);
});

Deno.test("a writer in full flow notices that its server vanished, and the server that its writer did", async () => {
  await using world = await ServerWorld.start();
  using client = world.client();
  await client.requestStart({ ...WHO, proposal: "000000010000000000000005" }, WAIT);
  await using stream = await client.append(OPENING, WAIT);
  const noise = new SeededRandom(3).bytes(MIB);
  let sent = 0;
  const sending = (async () => {
    for (;; sent += noise.length) {
      await stream.send(lsnAdd(OPENING.start, sent), noise.slice(), WAIT);
    }
  })();
  const failed = assert.rejects(sending, (error) => isKind(error, "repository"));
  await eventually("WAL flows", () => sent > 8 * MIB);
  world.proxy.freeze();
  const startedMs = SYSTEM_CLOCK.monotonicMs();
  await failed;
  const tookMs = SYSTEM_CLOCK.monotonicMs() - startedMs;
  assert.ok(tookMs < NOTICED_MS_MAX, `the writer noticed after ${tookMs} ms`);
  await eventually("The server gives the dead writer up", () => world.server.calls === 0);
});

Deno.test("a disk that stands still: acknowledgements stop, the stream lives, what waits is bounded", async () => {
  await using world = await ServerWorld.start();
  using client = world.client();
  await using streamer = new Streamer(client);
  streamer.primary.write(5000);
  await streamer.untilCaughtUp();
  const before = streamer.flushed;
  world.files.stall();
  streamer.primary.write(3 * MIB);
  // Far longer than the keep-alive allows a dead peer: standing still is no reason to be taken for dead.
  await streamer.untilStatuses(
    Math.ceil(2 * (KEEPALIVE.intervalMs + KEEPALIVE.timeoutMs) / STATUS_INTERVAL_MS),
  );
  assert.equal(streamer.failures, 0);
  assert.equal(streamer.flushed, before);
  world.files.resume();
  await streamer.untilCaughtUp();
  assert.equal(streamer.failures, 0);
  assert.equal(await world.checkStored(), streamer.primary.end);
});

Deno.test("a disk that stands still takes a bounded number of bytes from a fast writer", async () => {
  await using world = await ServerWorld.start();
  using client = world.client(world.server.port);
  await client.requestStart({ ...WHO, proposal: "000000010000000000000005" }, WAIT);
  await using stream = await client.append(OPENING, WAIT);
  world.files.stall();
  const total = 96 * MIB;
  const noise = new SeededRandom(3).bytes(MIB); // does not compress: what waits is what was sent
  let sent = 0;
  let sentAtMs = SYSTEM_CLOCK.monotonicMs();
  const sending = (async () => {
    for (; sent < total; sent += noise.length, sentAtMs = SYSTEM_CLOCK.monotonicMs()) {
      await stream.send(lsnAdd(OPENING.start, sent), noise.slice(), WAIT);
    }
    await stream.finish(WAIT);
  })();
  await eventually(
    "The writer comes to a stop",
    () => SYSTEM_CLOCK.monotonicMs() - sentAtMs > 300,
  );
  const waiting = sent;
  // Queue and batch of the archive, windows of HTTP/2, buffers of both ends and of the kernel.
  assert.ok(waiting < 48 * MIB, `${waiting} bytes were taken while the disk stood still`);
  world.files.resume();
  await sending;
});

Deno.test("a reader that stops reading, or vanishes, costs a bounded number of bytes and no call", async () => {
  const archive = new MemoryWalArchive();
  archive.endless = { block: new SeededRandom(4).bytes(MIB), count: 1000 };
  await using server = await startServer([walService(archive)], { keepalive: KEEPALIVE });
  await using proxy = new HalfOpenProxy(server.port);
  {
    using client = new WalClient({
      server: addressOf(proxy.port),
      clock: SYSTEM_CLOCK,
      keepalive: KEEPALIVE,
    });
    const file = await client.get({ cluster: CLUSTER, name: "000000010000000000000005" }, WAIT);
    let read = -1;
    await eventually("The server comes to a stop", () => {
      const still = read === archive.blocksRead;
      read = archive.blocksRead;
      return still && read > 0;
    });
    assert.ok(read < 40, `${read} MiB were read for a reader that does not read`);
    proxy.freeze();
    await eventually("The server gives the dead reader up", () => server.calls === 0);
    await assert.rejects(async () => {
      for await (const block of file.blocks) assert.equal(block.length, MIB);
    }, (error) => isKind(error, "repository"));
  }
  await endBackoffTimer();
});

Deno.test("connections that say nothing or nonsense keep nobody from being served, nor the server from stopping", async () => {
  await using world = await ServerWorld.start();
  using client = world.client();
  const { port } = world.server;
  const strangers = await Promise.all(
    Array.from({ length: 20 }, () => Deno.connect({ hostname: "127.0.0.1", port })),
  );
  const nonsense = [
    new Uint8Array(),
    Uint8Array.of(0x16),
    // The head of a TLS record that promises more than it brings.
    Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3),
    utf8("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    utf8("GET / HTTP/1.1\r\n\r\n"),
  ];
  for (const [index, stranger] of strangers.entries()) {
    await stranger.write(nonsense[index % nonsense.length] ?? new Uint8Array());
  }
  await client.requestStart({ ...WHO, proposal: "000000010000000000000005" }, WAIT);
  assert.equal((await client.metadata(CLUSTER, WAIT)).systemId, WHO.systemId);
  const startedMs = SYSTEM_CLOCK.monotonicMs();
  await world.server.close({ timeoutMs: 0 });
  assert.ok(SYSTEM_CLOCK.monotonicMs() - startedMs < NOTICED_MS_MAX);
  for (const stranger of strangers) stranger.close();
});

const TROUBLES: ReadonlyArray<readonly [FailureKind, readonly Operation[]]> = [
  ["exhausted", ["write"]],
  ["exhausted", ["sync"]],
  ["exhausted", ["create", "mkdir"]],
  ["permission", ["create", "rename"]],
  ["permission", ["open", "create", "write", "sync", "rename", "mkdir"]],
  ["repository", ["sync", "syncDirectory"]],
];

for (const [kind, operations] of TROUBLES) {
  Deno.test(`storage that fails with ${kind} in ${operations.join(", ")}: no acknowledgement, and recovery by itself`, async () => {
    await using world = await ServerWorld.start();
    using client = world.client(world.server.port);
    await using streamer = new Streamer(client);
    streamer.primary.write(MIB + 5000);
    await streamer.untilCaughtUp();
    world.files.setFault({ kind, operations });
    streamer.primary.write(2 * MIB);
    await streamer.until(() => streamer.failures >= 3);
    assert.equal(streamer.progress?.state === "failed", false);
    assert.match(streamer.progress?.lastError ?? "", /WAL|klio server|injected/);
    const { flushed } = streamer;
    assert.ok(flushed < streamer.primary.end);
    world.files.clearFault();
    assert.ok(await world.checkStored() >= flushed, "what was acknowledged is there");
    await streamer.untilCaughtUp();
    assert.equal(await world.checkStored(), streamer.primary.end);
    assert.deepEqual((await client.metadata(CLUSTER, WAIT)).gaps, []);
  });
}

Deno.test("jumps of the wall clock change nothing: statuses, acknowledgements, retries", async () => {
  await using world = await ServerWorld.start();
  const clock = new FakeClock();
  await using streamer = new Streamer(world.archive, clock);
  streamer.primary.write(5000);
  await streamer.untilCaughtUp();
  for (const jumpMs of [-86_400_000, 10 * 365 * 86_400_000, -9 * 365 * 86_400_000]) {
    clock.jumpWall(jumpMs);
    streamer.primary.write(5000);
    await streamer.untilCaughtUp();
    const before = streamer.primary.statuses.length;
    await clock.advance(STATUS_INTERVAL_MS * 4);
    assert.equal(streamer.primary.statuses.length, before + 4);
    assert.equal(streamer.failures, 0);
  }
  streamer.primary.endAll(new AppError("source", "Stream WAL: the connection broke"));
  await streamer.until(() => streamer.failures === 1);
  clock.jumpWall(-86_400_000);
  streamer.primary.write(5000);
  await clock.advance(50);
  await streamer.untilCaughtUp();
});
