import assert from "node:assert/strict";
import fc from "fast-check";
import { AppError, isKind } from "../../base/failure.ts";
import { SILENT } from "../../base/log.ts";
import { type Lsn, lsn, lsnMax, segmentNameStart } from "../../domain/lsn.ts";
import { FakeClock } from "../../../tests/support/fake_clock.ts";
import { MemoryPrimary } from "../../../tests/support/memory_primary.ts";
import { MemoryWalServer } from "../../../tests/support/memory_wal_server.ts";
import { SeededRandom } from "../../../tests/support/seeded_random.ts";
import { STREAM_WAL_DEFAULTS, type StreamProgress, streamWal } from "./mod.ts";

const signal = new AbortController().signal;
const ENOUGH = new AppError("cancelled", "The test is over");
const SEGMENT = 1 << 20;

/** A primary, a server and a streamer between them. */
class World {
  readonly clock = new FakeClock();
  readonly primary = new MemoryPrimary();
  readonly server = new MemoryWalServer();
  readonly lines: string[] = [];
  readonly progress: StreamProgress[] = [];
  readonly #stopping = new AbortController();
  ended: Promise<void> = Promise.resolve();

  start(seed = 1): this {
    const say = (message: string) => void this.lines.push(message);
    const log = { ...SILENT, warn: say, info: say, with: () => log };
    this.ended = streamWal(
      {
        source: this.primary,
        server: this.server,
        clock: this.clock,
        random: new SeededRandom(seed),
        log,
        onProgress: (p) => this.progress.push(p),
      },
      { cluster: "c", ...STREAM_WAL_DEFAULTS },
      { signal: this.#stopping.signal },
    );
    this.ended.catch(() => {/* looked at by the test */});
    return this;
  }

  async stop(): Promise<void> {
    this.#stopping.abort(ENOUGH);
    await this.ended;
    assert.equal(this.last.state, "stopped");
    this.checkLeftovers();
  }

  checkLeftovers(): void {
    assert.equal(this.primary.open, 0, "no connection is left open");
    assert.equal(this.clock.sleeping, 0, "no timer is left");
  }

  get last(): StreamProgress {
    return this.progress.at(-1) ?? assert.fail("no progress");
  }

  /** Until PostgreSQL has heard that all it has is durable, moving time when nothing else moves. */
  async untilCaughtUp(): Promise<void> {
    for (let i = 0; i < 200; i++) {
      if (this.primary.statuses.at(-1)?.flush === this.primary.end) return;
      await this.clock.advance(1000);
    }
    assert.fail(`no end in sight: ${JSON.stringify(this.last, (_, v) => String(v))}`);
  }

  async untilCaughtUpAfter(sizeBytes: number): Promise<void> {
    this.primary.write(sizeBytes);
    await this.untilCaughtUp();
  }

  /** Everything stored is what the primary wrote on that timeline. */
  compare(): void {
    for (const [name, segment] of this.server.segments) {
      const start = segmentNameStart(name, SEGMENT);
      const timeline = Number.parseInt(name.slice(0, 8), 16);
      for (let i = 0; i < segment.length; i += 997) {
        const position = start + BigInt(i);
        const index = this.primary.switchPoints.slice(0, timeline - 1).findIndex((p) =>
          position < p
        );
        const writer = index === -1 ? timeline : index + 1;
        assert.equal(
          segment.bytes[i],
          MemoryPrimary.byteAt(writer, Number(position)),
          `${name} at ${i}`,
        );
      }
    }
  }
}

Deno.test("streamWal() creates its slot, starts at the segment, and reports what is durable at once", async () => {
  const world = new World();
  world.primary.write(1000);
  world.start();
  await world.untilCaughtUp();
  const end = world.primary.write(3 * SEGMENT);
  await world.primary.until(() => world.primary.statuses.at(-1)?.flush === end, { signal });
  assert.deepEqual(world.server.notes.slice(0, 2), [
    { kind: "request_start", proposal: "000000010000000000000005" },
    { kind: "append", timeline: 1, start: lsn(5n << 20n) },
  ]);
  assert.equal(world.last.durable, end);
  world.compare();
  await world.stop();
  assert.equal(world.lines.filter((l) => l === "Created the replication slot").length, 1);
  const states = world.progress.map((p) => p.state).filter((s, i, all) => s !== all[i - 1]);
  assert.deepEqual(states, ["starting", "connecting", "streaming", "draining", "stopped"]);
});

Deno.test("streamWal() keeps the status flowing while the server stalls, and answers keepalives at once", async () => {
  const world = new World().start();
  await world.untilCaughtUpAfter(5000);
  world.server.stall();
  world.primary.write(5000);
  await world.clock.advance(0);
  for (let i = 0; i < 5; i++) {
    const before = world.primary.statuses.length;
    await world.clock.advance(STREAM_WAL_DEFAULTS.statusIntervalMs);
    assert.equal(world.primary.statuses.length, before + 1);
  }
  const stalled = world.primary.statuses.at(-1);
  assert.ok(stalled !== undefined && stalled.flush < stalled.write);
  world.server.resume();
  await world.untilCaughtUp();
  const before = world.primary.statuses.length;
  world.primary.askForReply();
  await world.clock.advance(0);
  assert.equal(world.primary.statuses.length, before + 1);
  await world.stop();
});

Deno.test("streamWal() makes all that it has received durable before it stops", async () => {
  const world = new World().start();
  await world.untilCaughtUpAfter(5000);
  world.server.stall();
  world.primary.write(5000);
  await world.clock.advance(0);
  const stopped = world.stop();
  await world.clock.advance(0);
  assert.equal(world.last.state, "draining");
  world.server.resume();
  await stopped;
  assert.equal(world.server.durable, world.primary.end);
  assert.equal(world.primary.statuses.at(-1)?.flush, world.primary.end);
});

Deno.test("streamWal() finishes what it has received when PostgreSQL breaks, before it tries again", async () => {
  const world = new World().start();
  await world.untilCaughtUpAfter(5000);
  world.server.lazy = true;
  const end = world.primary.write(5000);
  await world.clock.advance(0);
  assert.ok(world.server.durable < end);
  world.primary.endAll(new AppError("source", "gone"));
  await world.clock.advance(0);
  assert.equal(world.server.durable, end);
  assert.equal(world.primary.connections, 1);
  world.server.lazy = false;
  await world.untilCaughtUp();
  await world.stop();
});

Deno.test("streamWal() follows a promotion on its connection, the history first", async () => {
  const world = new World().start();
  await world.untilCaughtUpAfter(5000);
  world.primary.promote();
  await world.untilCaughtUpAfter(5000);
  assert.equal(world.last.failures, 0);
  assert.equal(world.last.timeline, 2);
  const kinds = world.server.notes.map((n) => n.kind).filter((kind) => kind !== "durable");
  assert.deepEqual(kinds, ["request_start", "append", "history", "append"]);
  await world.stop();
});

Deno.test("streamWal() tries again with growing waits, and logs the first failure and the recovery", async () => {
  const world = new World();
  const waits: number[] = [];
  world.primary.failConnect = new AppError("source", "down");
  world.start();
  for (let i = 0; i < 10; i++) {
    await world.clock.untilSleeping(1);
    const before = world.clock.monotonicMs();
    world.primary.failConnect = new AppError("source", "down");
    const connections = world.primary.connections;
    while (world.primary.connections === connections) await world.clock.advance(25);
    waits.push(world.clock.monotonicMs() - before);
  }
  const { firstMs, maxMs } = STREAM_WAL_DEFAULTS.backoff;
  assert.ok((waits[0] ?? 0) <= firstMs + 25);
  assert.ok(Math.max(...waits) <= maxMs + 25 && Math.max(...waits) > maxMs / 2);
  await world.untilCaughtUpAfter(10);
  await world.untilCaughtUpAfter(10);
  const heard = world.lines.filter((l) => /interrupted|again/.test(l));
  assert.deepEqual(heard, ["Streaming was interrupted, trying again", "Streaming again"]);
  await world.stop();
});

Deno.test("streamWal() stops at once on what cannot get better, and throws it", async () => {
  for (const kind of ["conflict", "permission", "config", "not_found", "corruption"] as const) {
    const world = new World();
    world.server.failNext = { call: "requestStart", error: new AppError(kind, "no") };
    world.start();
    await assert.rejects(world.ended, (error) => isKind(error, kind));
    assert.equal(world.last.state, "failed");
    world.checkLeftovers();
  }
  const other = new World();
  other.server.systemId = "8";
  other.start();
  await assert.rejects(other.ended, (error) => isKind(error, "conflict"));
});

Deno.test("streamWal() waits for another writer to leave: it may be its own last connection", async () => {
  const world = new World();
  world.server.failNext = { call: "append", error: new AppError("conflict", "a writer is there") };
  world.primary.write(10);
  world.start();
  await world.untilCaughtUp();
  assert.equal(world.last.failures, 1);
  await world.stop();
});

Deno.test("streamWal() leaves a dead branch of the archive for the history of PostgreSQL", async () => {
  const world = new World();
  const old = new World();
  old.start();
  await old.untilCaughtUpAfter(100);
  await old.untilCaughtUpAfter(3 * SEGMENT);
  await old.stop();
  for (const [name, segment] of old.server.segments) world.server.segments.set(name, segment);
  world.primary.write(SEGMENT + 100);
  world.primary.promote();
  world.primary.write(2 * SEGMENT);
  world.start();
  await world.untilCaughtUp();
  assert.deepEqual(world.server.notes.filter((n) => n.kind === "append"), [
    { kind: "append", timeline: 2, start: lsn(6n << 20n) },
  ]);
  world.compare();
  await world.stop();
});

Deno.test("streamWal(): whatever breaks, in whatever order, nothing is lost and no flush is a lie", async () => {
  const action = fc.constantFrom(
    "write",
    "write a lot",
    "stall",
    "resume",
    "break primary",
    "shut down",
    "break server",
    "send fails",
    "append fails",
    "finish fails",
    "promote",
    "ask",
    "wait",
    "wait long",
  );
  const story = async (actions: readonly string[], seed: number) => {
    const world = new World();
    const { primary, server, clock } = world;
    let durable: Lsn = lsn(0n);
    const note = server.note.bind(server);
    server.note = (n) => {
      if (n.kind === "durable") durable = lsnMax(durable, n.position);
      note(n);
    };
    primary.statuses.push = function (...all) {
      for (const status of all) assert.ok(status.flush <= durable, "the flush is durable");
      return Array.prototype.push.apply(this, all);
    };
    const down = () => new AppError("source", "down");
    const away = () => new AppError("repository", "away");
    const effects: Record<string, () => unknown> = {
      "write": () => primary.write(100),
      "write a lot": () => primary.write(SEGMENT / 2 + 7),
      "stall": () => server.stall(),
      "resume": () => server.resume(),
      "break primary": () => primary.endAll(down()),
      "shut down": () => primary.endAll("ended"),
      "break server": () => server.breakStream(away()),
      "send fails": () => server.failNext = { call: "send", error: away() },
      "append fails": () => server.failNext = { call: "append", error: away() },
      "finish fails": () => server.failNext = { call: "finish", error: away() },
      "promote": () => primary.promote(),
      "ask": () => primary.askForReply(),
      "wait": () => clock.advance(10),
      "wait long": () => clock.advance(20_000),
    };
    primary.write(10);
    world.start(seed);
    for (const name of actions) await effects[name]?.();
    server.resume();
    primary.write(1);
    await world.untilCaughtUp();
    world.compare();
    await world.stop();
  };
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 30 }), fc.nat(), story),
    { numRuns: 150 },
  );
});
