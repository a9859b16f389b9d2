/**
 * A whole WAL path in one simulated world: a primary, streamers, a network, a server and its disk, all on one clock and one
 * seed. {@link runWorld} lets it live under the faults that the seed enables, heals it, waits until everything is durable
 * and flushed, takes the power away once more and looks at what survived.
 *
 * @module
 */

import { AppError, describeError } from "../../src/base/failure.ts";
import type { Logger } from "../../src/base/log.ts";
import { formatLsn, lsn, lsnDistance, lsnMax, type TimelineId } from "../../src/domain/lsn.ts";
import { STREAM_WAL_DEFAULTS, streamWal } from "../../src/features/walstream/mod.ts";
import type { ReplicationSession, StandbyStatus } from "../../src/ports/postgres.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { type Cut, type SimClient, SimNetwork } from "../support/sim_network.ts";
import { SimPrimary } from "../support/sim_primary.ts";
import { SimServer, simVolume } from "../support/sim_server.ts";
import { SIM_SEGMENT_BYTES } from "../support/sim_wal.ts";
import { faultsOf } from "./wal_faults.ts";
import { SIM_CLUSTER, Violation, WalLedger } from "./wal_ledger.ts";

/** Deliberate bugs, each of which the simulation must find. */
export const CANARIES = [
  "acknowledges what has arrived",
  "does not sync files",
  "does not sync directories",
  "reports received as flushed",
  "records no gaps",
] as const;
/** See {@link CANARIES}. */
export type Canary = typeof CANARIES[number];

/** How long a healed world may take until all is durable: silent connections and back-off included. */
const CATCH_UP_MS_MAX = 180_000;
const STEP_MS = 100;
const TRACE_LINES_MAX = 60;

/** How a world ended. */
export interface WorldReport {
  /** Simulated. */
  readonly lastedMs: number;
  /** What happened, the latest lines. */
  readonly trace: readonly string[];
  readonly violation: unknown;
  readonly faults: readonly string[];
  /** How often PostgreSQL removed WAL that was perhaps not archived. */
  readonly losses: number;
}

/** Runs one world to its end; never rejects for what happened in it. */
export async function runWorld(seed: number, canary?: Canary): Promise<WorldReport> {
  const world = new World(seed, canary);
  const onUnhandled = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    world.violated(new Violation(`a failure that nobody looked at: ${event.reason}`));
  };
  globalThis.addEventListener("unhandledrejection", onUnhandled);
  try {
    return await world.run();
  } finally {
    globalThis.removeEventListener("unhandledrejection", onUnhandled);
  }
}

interface Streamer {
  isDead: boolean;
  readonly stop: AbortController;
  readonly client: SimClient;
  readonly sessions: Set<ReplicationSession>;
}

class World {
  readonly #clock = new FakeClock();
  readonly #end = new AbortController();
  readonly #canary: Canary | undefined;
  readonly #random: SeededRandom;
  readonly #streamerRandom: SeededRandom;
  readonly #writerRandom: SeededRandom;
  readonly #trace: string[] = [];
  readonly #faults: string[] = [];
  readonly #primary: SimPrimary;
  readonly #network: SimNetwork;
  readonly #ledger: WalLedger;
  #server: SimServer | undefined;
  /** Those that were not killed. The first is the one that ought to run. */
  readonly #streamers = new Set<Streamer>();
  #started = 0;
  #violation: unknown;
  #healed = false;

  constructor(seed: number, canary: Canary | undefined) {
    this.#canary = canary;
    const random = new SeededRandom(seed);
    this.#random = random;
    this.#streamerRandom = random.fork();
    this.#writerRandom = random.fork();
    this.#primary = new SimPrimary({
      clock: this.#clock,
      random: random.fork(),
      onFlush: (timeline, status) => this.#flushed(timeline, status),
    });
    this.#ledger = new WalLedger(this.#primary);
    this.#network = new SimNetwork({
      clock: this.#clock,
      random: random.fork(),
      identity: { user: "streamer", cluster: SIM_CLUSTER },
      latencyMsMax: random.pick([2, 10, 200]),
      windowBytes: random.pick([64 << 10, 1 << 20]),
      signal: this.#end.signal,
      archive: () => this.#server?.archive,
      onDurable: (stream, position) => this.#ledger.acknowledged(stream, position),
      onHistory: (timeline) => this.#ledger.stored(timeline),
      onBug: (error) => this.violated(error),
      acknowledgesArrival: canary === "acknowledges what has arrived",
    });
  }

  violated(violation: unknown): void {
    if (this.#violation !== undefined) return;
    this.#note(`VIOLATION: ${describeError(violation)}`);
    this.#violation = violation;
  }

  #note(text: string): void {
    if (this.#trace.length >= TRACE_LINES_MAX) this.#trace.shift();
    this.#trace.push(`${(this.#clock.monotonicMs() / 1000).toFixed(3).padStart(9)} s  ${text}`);
  }

  #log(who: string): Logger {
    const say = (message: string, fields?: object, error?: unknown) => {
      const text = Object.entries(fields ?? {}).map(([key, value]) => `${key}=${value}`).join(" ");
      const why = error === undefined ? "" : `: ${describeError(error)}`;
      this.#note(`${who}: ${message} ${text}${why}`);
    };
    const log: Logger = { error: say, warn: say, info: say, debug() {}, with: () => log };
    return log;
  }

  async run(): Promise<WorldReport> {
    try {
      const server = await this.#startServer();
      this.#startStreamer();
      this.#spawn(() => this.#writeWal());
      await this.#liveUnderFaults(server);
      this.#heal(server);
      await this.#catchUp(server);
      await this.#endWell(server);
    } catch (error) {
      this.violated(error);
    }
    this.#end.abort(new AppError("cancelled", "The world ended"));
    for (const streamer of this.#streamers) streamer.stop.abort(OVER);
    this.#server?.kill();
    await this.#clock.advance(0);
    return {
      lastedMs: this.#clock.monotonicMs(),
      trace: this.#trace,
      violation: this.#violation,
      faults: this.#faults,
      losses: this.#primary.losses,
    };
  }

  #spawn(work: () => Promise<void>): void {
    void work().catch((error) => {
      if (!this.#end.signal.aborted) this.violated(error);
    });
  }

  #later(ms: number, action: () => void): void {
    this.#spawn(async () => {
      await this.#clock.sleep(ms, this.#end);
      action();
    });
  }

  async #startServer(): Promise<SimServer> {
    const pretended = {
      "does not sync files": "sync",
      "does not sync directories": "syncDirectory",
    } as const;
    const server = new SimServer(await simVolume(), {
      clock: this.#clock,
      random: this.#random.fork(),
      log: this.#log("server"),
      signal: this.#end.signal,
      trace: (text) => this.#note(text),
      onKilled: () => {
        this.#note("server: killed");
        this.#network.serverDied("reset");
        this.#restartLater(server);
      },
      onPowerLoss: (survived) => this.#powerLost(server, survived),
      forgetsGaps: this.#canary === "records no gaps",
      pretended: Object.entries(pretended).find(([canary]) => canary === this.#canary)?.[1],
    });
    this.#server = server;
    server.syncMsMax = this.#random.pick([1, 8, 50]);
    await this.#advanceWhile(server.start());
    return server;
  }

  async #advanceWhile(work: Promise<unknown>): Promise<void> {
    let isOver = false;
    void work.then(() => isOver = true, () => isOver = true);
    while (!isOver) await this.#clock.advance(1);
    await work;
  }

  #powerLost(server: SimServer, survived: SimServer["disk"]): void {
    this.#note("server: lost power");
    this.#network.serverDied("silence");
    this.#spawn(() => this.#ledger.verify(survived));
    this.#restartLater(server);
  }

  #restartLater(server: SimServer): void {
    this.#later(this.#random.integer(0, 5000), () => this.#spawn(() => server.start()));
  }

  #flushed(timeline: TimelineId, status: StandbyStatus): void {
    try {
      this.#ledger.flushed(timeline, status.flush);
    } catch (error) {
      this.violated(error);
    }
  }

  #startStreamer(): Streamer {
    const stop = new AbortController();
    const streamer: Streamer = {
      isDead: false,
      stop,
      client: this.#network.client(),
      sessions: new Set(),
    };
    this.#streamers.add(streamer);
    const log = this.#log(`streamer ${++this.#started}`);
    const deps = {
      source: { connect: (options: { signal: AbortSignal }) => this.#connect(streamer, options) },
      server: streamer.client,
      clock: this.#clock,
      random: this.#streamerRandom.fork(),
      log: { ...log, with: () => log },
    };
    const holdMs = this.#random.pick([0, 0, 20]);
    const config = { ...STREAM_WAL_DEFAULTS, cluster: SIM_CLUSTER, holdMs };
    void streamWal(deps, config, stop).then(() => {
      if (!streamer.isDead && !stop.signal.aborted) {
        this.violated(new Violation("the streamer ended by itself"));
      }
    }, (error) => {
      if (streamer.isDead || this.#end.signal.aborted) return;
      this.violated(
        new Violation(`the streamer gave up: ${describeError(error)}`, { cause: error }),
      );
    });
    return streamer;
  }

  async #connect(
    streamer: Streamer,
    options: { signal: AbortSignal },
  ): Promise<ReplicationSession> {
    const session = await this.#primary.connect(options);
    streamer.sessions.add(session);
    if (this.#canary !== "reports received as flushed") return session;
    return {
      ...session,
      startReplication: async (request, waiting) => {
        const replication = await session.startReplication(request, waiting);
        let flush = lsn(0n);
        const sendStatus = (status: StandbyStatus) => {
          flush = lsnMax(flush, status.write);
          return replication.sendStatus({ ...status, flush });
        };
        return { ...replication, sendStatus };
      },
    };
  }

  /** SIGKILL, or its machine is gone: then the peers notice late. */
  #kill(streamer: Streamer, cut: Cut): void {
    if (!this.#streamers.delete(streamer)) return;
    streamer.isDead = true;
    streamer.client.sever(cut);
    for (const session of streamer.sessions) {
      this.#spawn(async () => await session[Symbol.asyncDispose]());
    }
    streamer.stop.abort(OVER);
  }

  #killAll(cut: Cut): void {
    for (const streamer of this.#streamers) this.#kill(streamer, cut);
  }

  #stopAll(): void {
    for (const streamer of this.#streamers) streamer.stop.abort(OVER);
    this.#streamers.clear();
  }

  #ensureStreamer(): void {
    if (this.#streamers.size === 0) this.#startStreamer();
  }

  async #writeWal(): Promise<void> {
    const random = this.#writerRandom;
    const pauseMsMax = random.pick([50, 300, 2000]);
    for (let budgetBytes = random.integer(1, 5) * SIM_SEGMENT_BYTES; budgetBytes > 0;) {
      await this.#clock.sleep(random.integer(1, pauseMsMax), this.#end);
      if (this.#healed) return;
      if (!this.#primary.isUp) continue;
      const before = this.#primary.end;
      if (random.float() < 0.15) this.#primary.switchSegment();
      else this.#primary.write(random.pick([48, 1000, 8192, 50_000, 300_000]));
      budgetBytes -= lsnDistance(before, this.#primary.end);
    }
  }

  async #liveUnderFaults(server: SimServer): Promise<void> {
    const random = this.#random;
    const actions = faultsOf({
      clock: this.#clock,
      random,
      primary: this.#primary,
      network: this.#network,
      server,
      later: (ms, action) => this.#later(ms, action),
      startServer: () => this.#spawn(() => server.start()),
      startStreamer: () => {
        const streamer = this.#startStreamer();
        return { kill: (cut) => this.#kill(streamer, cut) };
      },
      ensureStreamer: () => this.#ensureStreamer(),
      killStreamers: (cut) => this.#killAll(cut),
      stopStreamers: () => this.#stopAll(),
    });
    // Swarm: every seed has some kinds of faults only, so that rare combinations get their worlds.
    const enabled = Object.entries(actions).filter(() => random.float() < 0.4);
    for (let left = random.integer(1, random.pick([3, 8, 20])); left > 0; left--) {
      await this.#live(random.pick([5, 50, 500, 3000]) * random.float());
      const entry = enabled[random.integer(0, Math.max(0, enabled.length - 1))];
      if (entry === undefined) continue;
      const [name, action] = entry;
      this.#note(`FAULT: ${name}`);
      this.#faults.push(name);
      action();
    }
    await this.#live(random.pick([0, 200, 5000]));
  }

  async #live(ms: number): Promise<void> {
    await this.#clock.advance(Math.ceil(ms));
    if (this.#violation !== undefined) throw this.#violation;
  }

  #heal(server: SimServer): void {
    this.#note("HEALED");
    this.#healed = true;
    server.disk.crashAt(Number.POSITIVE_INFINITY);
    server.disk.clearFault();
    server.killAfterChecks = Number.POSITIVE_INFINITY;
    server.syncMsMax = 4;
    this.#network.isPartitioned = false;
    this.#primary.start();
    this.#primary.write(100);
    if (!server.isUp) this.#spawn(() => server.start());
    this.#ensureStreamer();
  }

  async #catchUp(server: SimServer): Promise<void> {
    const deadlineMs = this.#clock.monotonicMs() + CATCH_UP_MS_MAX;
    while (this.#ledger.told !== this.#primary.end) {
      if (this.#clock.monotonicMs() > deadlineMs) {
        throw new Violation(
          `not caught up ${CATCH_UP_MS_MAX} ms after the last fault: PostgreSQL was told ${
            formatLsn(this.#ledger.told)
          } as flushed, its ends at ${formatLsn(this.#primary.end)}`,
        );
      }
      await this.#live(STEP_MS);
      // A crash that was armed before may have struck meanwhile.
      if (!server.disk.crashed) server.disk.crashAt(Number.POSITIVE_INFINITY);
    }
  }

  /** The last look, at what a power failure leaves. */
  async #endWell(server: SimServer): Promise<void> {
    const survived = server.disk.afterCrash(this.#random.integer(0, 1 << 30));
    await this.#ledger.verifyComplete(survived, this.#primary.end);
  }
}

const OVER = new AppError("cancelled", "The process was asked to stop");
