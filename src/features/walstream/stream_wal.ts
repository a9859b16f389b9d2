/**
 * The streamer's shell: connects, negotiates the start, and carries out what `stream_machine.ts` decides, until it is asked
 * to stop. One connection after the other; what may be retried is retried with back-off, what cannot get better by
 * itself is thrown. Memory: about 3 MiB of WAL (what the source reads ahead, the batch in hand, its joined copy) plus what
 * the transport to the server holds.
 *
 * @module
 */

import { linkSignals, type Waiting } from "../../base/abort.ts";
import {
  AppError,
  describeError,
  type FailureKind,
  failureKind,
  isKind,
} from "../../base/failure.ts";
import type { Logger } from "../../base/log.ts";
import { backoffMs } from "../../base/retry.ts";
import { TaskGroup } from "../../base/task_group.ts";
import { formatLsn, type Lsn, LSN_ZERO, lsnMax, lsnMin, segmentStart } from "../../domain/lsn.ts";
import type { Replication, ReplicationEnd } from "../../ports/postgres.ts";
import type { WalAppendStream } from "../../ports/wal_server.ts";
import { FlushLagMeter } from "./flush_lag.ts";
import { type Connection, Negotiation } from "./negotiation.ts";
import { type DataLocation, type SlotPosition, watchSlot } from "./slot_watch.ts";
import type { StartPoint } from "./start_point.ts";
import { StreamMachine } from "./stream_machine.ts";
import { streamTimeline } from "./stream_timeline.ts";
import type { StreamProgress, StreamWalConfig, StreamWalDeps } from "./types.ts";

/**
 * Streams until `signal` aborts (then it drains, and returns) or until it fails for good (then it throws `conflict`,
 * `permission`, `config`, `not_found`, or a bug). Everything that can get better by itself is retried.
 */
export async function streamWal(
  deps: StreamWalDeps,
  config: StreamWalConfig,
  options: Waiting,
): Promise<void> {
  await new Streamer(deps, config, options.signal).run();
}

/** Kinds that another try may cure. Everything else stops the streamer. */
const RETRIED: ReadonlySet<FailureKind> = new Set([
  "source",
  "repository",
  "protocol",
  "timeout",
  "exhausted",
  "cancelled",
]);

class Streamer {
  readonly #deps: StreamWalDeps;
  readonly #config: StreamWalConfig;
  readonly #signal: AbortSignal;
  readonly #log: Logger;
  readonly #negotiation: Negotiation;
  readonly #lag = new FlushLagMeter();
  /** Of the connection that runs. */
  #endConnection: (reason: unknown) => void = () => {};
  #location: DataLocation | undefined;
  /** Where the slot began to hold WAL back when this connection began. */
  #slotRestart: Lsn = LSN_ZERO;
  /** Failures since WAL was last acknowledged. */
  #attempt = 0;
  #progress: Omit<StreamProgress, "flushLag"> = {
    state: "starting",
    systemId: undefined,
    timeline: undefined,
    received: LSN_ZERO,
    durable: LSN_ZERO,
    reported: LSN_ZERO,
    walEnd: LSN_ZERO,
    receivedBytes: 0,
    slot: undefined,
    failures: 0,
    lastError: undefined,
  };

  constructor(deps: StreamWalDeps, config: StreamWalConfig, signal: AbortSignal) {
    this.#deps = deps;
    this.#config = config;
    this.#signal = signal;
    this.#log = deps.log.with({ component: "streamer", cluster: config.cluster });
    this.#negotiation = new Negotiation(deps.server, config, this.#log);
  }

  async run(): Promise<void> {
    await using tasks = new TaskGroup(new AbortController().signal);
    using accompanied = linkSignals(tasks.signal);
    tasks.start(() => this.#watchSlot(accompanied));
    tasks.start(async (failed) => {
      using life = linkSignals(this.#signal, failed);
      try {
        await this.#run(life.signal);
      } finally {
        accompanied.abort(STOPPED);
      }
    });
    await tasks.join();
  }

  async #run(stop: AbortSignal): Promise<void> {
    this.#publish({});
    while (!stop.aborted) {
      using life = linkSignals(stop);
      this.#endConnection = (reason) => life.abort(reason);
      try {
        this.#publish({ state: "connecting" });
        await this.#connection(life.signal);
      } catch (error) {
        if (!life.signal.aborted) await this.#failed(error, stop);
        else if (error !== life.signal.reason) {
          this.#log.warn("Stopped without a clean end", {}, error);
        }
      }
    }
    this.#log.info("Stopped", this.#positions());
    this.#publish({ state: "stopped" });
  }

  #watchSlot(options: Waiting): Promise<void> {
    return watchSlot({
      deps: this.#deps,
      config: this.#config,
      log: this.#log,
      position: () => this.#slotPosition(),
      location: () => this.#location,
      onStatus: (slot) => this.#publish({ slot }),
      onRelease: (status) => {
        if (!this.#negotiation.releaseSlot(status)) return;
        this.#endConnection(new AppError("cancelled", "The replication slot is to be given up"));
      },
    }, options);
  }

  /** Known while the stream is caught up. */
  #slotPosition(): SlotPosition | undefined {
    const { state, timeline, received, durable, reported, walEnd } = this.#progress;
    if (state !== "streaming" || timeline === undefined) return undefined;
    if (durable !== received || walEnd > received) return undefined;
    return { restart: lsnMax(this.#slotRestart, reported), walEnd: received, timeline };
  }

  /** Waits before the next try, or throws what cannot be cured. */
  async #failed(error: unknown, stop: AbortSignal): Promise<void> {
    const failures = this.#progress.failures + 1;
    const lastError = describeError(error);
    if (!RETRIED.has(failureKind(error))) {
      this.#publish({ state: "failed", failures, lastError });
      throw error;
    }
    // Told once per reason: the second, that another writer is there, must not hide behind the first.
    if (this.#attempt === 0 || lastError !== this.#progress.lastError) {
      this.#log.warn("Streaming was interrupted, trying again", this.#positions(), error);
    }
    this.#lag.forget();
    this.#publish({ state: "connecting", failures, lastError });
    const { backoff, heldBackoffMsMax } = this.#config;
    const maxMs = isHeld(error) ? Math.min(backoff.maxMs, heldBackoffMsMax) : backoff.maxMs;
    const waitMs = backoffMs({ ...backoff, maxMs }, this.#attempt++, this.#deps.random);
    try {
      await this.#deps.clock.sleep(waitMs, { signal: stop });
    } catch (reason) {
      if (!stop.aborted) throw reason;
    }
  }

  /** One connection to PostgreSQL, from its start to its end. */
  async #connection(signal: AbortSignal): Promise<void> {
    await using session = await this.#deps.source.connect({ signal });
    const connection = await this.#negotiation.connect(session, { signal });
    this.#publish({ systemId: connection.system.systemId });
    this.#location = connection.location;
    this.#slotRestart = connection.slot.restartLsn ?? LSN_ZERO;
    let at = await this.#negotiation.negotiate(connection);
    let reported = LSN_ZERO;
    while (!signal.aborted) {
      const result = await this.#stream(connection, at, reported);
      if (signal.aborted) return;
      const end = result.end;
      if (end.kind === "ended") {
        throw new AppError(
          "source",
          "Stream WAL: PostgreSQL ended the stream, as it does when it shuts down",
        );
      }
      if (end.nextTimeline <= at.timeline) {
        throw new AppError(
          "protocol",
          `Follow timeline ${at.timeline}: PostgreSQL named ${end.nextTimeline} as the next one`,
        );
      }
      this.#log.info("Following a timeline switch", {
        fromTimeline: at.timeline,
        toTimeline: end.nextTimeline,
        switchPoint: formatLsn(end.nextStart),
      });
      // Stored before any WAL of the timeline: a restore must never find WAL whose origin it cannot tell.
      await this.#negotiation.storeHistory(connection, end.nextTimeline);
      reported = lsnMin(result.reported, end.nextStart);
      at = {
        timeline: end.nextTimeline,
        start: segmentStart(end.nextStart, connection.segmentSizeBytes),
      };
    }
  }

  /** Streams one timeline until it ends or until we are asked to stop. */
  async #stream(
    connection: Connection,
    at: StartPoint,
    reported: Lsn,
  ): Promise<{ readonly end: ReplicationEnd; readonly reported: Lsn }> {
    const { slot, segmentSizeBytes, statusIntervalMs, signal } = connection;
    const { clock } = this.#deps;
    const { sendBytesMax, holdMs, drainTimeoutMs } = this.#config;
    await using append = await this.#openAppend(connection, at);
    const start = { timeline: at.timeline, start: append.start };
    const replication = await this.#startReplication(connection, start);
    const machine = new StreamMachine({
      start: append.start,
      reported,
      reportMin: slot.restartLsn ?? LSN_ZERO,
      statusIntervalMs,
      sendBytesMax,
      holdMs,
      nowMs: clock.monotonicMs(),
    });
    this.#log.info("Streaming", {
      timeline: at.timeline,
      start: formatLsn(append.start),
      segmentSizeBytes,
    });
    if (append.confirmsSegmentsOnly === true) {
      this.#log.warn(
        "This server confirms whole segments only: synchronous replication would wait for each",
      );
    }
    this.#publish({ state: "streaming", timeline: at.timeline, lastError: undefined });
    const result = await streamTimeline({
      replication,
      append,
      machine,
      clock,
      drainTimeoutMs,
      onDrain: () => this.#publish({ state: "draining" }),
      onStep: (receivedBytes) => this.#stepped(machine, receivedBytes),
    }, { signal });
    const { end } = result;
    if (end.kind !== "wal_removed") return { end, reported: result.reported };
    // In the middle of a stream it is tried again first: the archive's needs are then known for sure.
    if (machine.received === append.start) this.#negotiation.walRemoved(start);
    throw walRemoved(start, end.cause);
  }

  async #startReplication(connection: Connection, start: StartPoint): Promise<Replication> {
    const { session, signal } = connection;
    try {
      return await session.startReplication({ slot: this.#config.slot, ...start }, { signal });
    } catch (error) {
      if (isKind(error, "conflict")) {
        this.#negotiation.slotInvalidated();
        throw new AppError("source", `Stream WAL from ${formatLsn(start.start)}`, { cause: error });
      }
      if (!isKind(error, "not_found")) throw error;
      this.#negotiation.walRemoved(start);
      throw walRemoved(start, error);
    }
  }

  async #openAppend(connection: Connection, at: StartPoint): Promise<WalAppendStream> {
    const { system, segmentSizeBytes, signal } = connection;
    const { cluster } = this.#config;
    try {
      return await this.#deps.server.append(
        { cluster, systemId: system.systemId, ...at, segmentSizeBytes },
        { signal },
      );
    } catch (error) {
      if (!isKind(error, "conflict")) throw error;
      // Often our own last connection, which the server has not yet seen break: it must not stop the streamer.
      throw new AppError(
        "repository",
        `Open the WAL stream of cluster "${cluster}": another writer holds it`,
        { cause: error, hint: "stop the other streamer of this cluster" },
      );
    }
  }

  #stepped(machine: StreamMachine, receivedBytes: number): void {
    const nowMs = this.#deps.clock.monotonicMs();
    if (receivedBytes > 0) this.#lag.received(machine.received, nowMs);
    if (machine.durable > this.#progress.durable) {
      this.#lag.durable(machine.durable, nowMs);
      if (this.#attempt > 0) this.#log.info("Streaming again", { attempts: this.#attempt });
      this.#attempt = 0;
    }
    this.#publish({
      received: machine.received,
      durable: machine.durable,
      reported: machine.reported,
      walEnd: machine.walEnd,
      receivedBytes: this.#progress.receivedBytes + receivedBytes,
    });
  }

  #positions(): { readonly received: string; readonly durable: string } {
    const { received, durable } = this.#progress;
    return { received: formatLsn(received), durable: formatLsn(durable) };
  }

  #publish(change: Partial<Omit<StreamProgress, "flushLag">>): void {
    this.#progress = { ...this.#progress, ...change };
    const lag = this.#lag;
    this.#deps.onProgress?.({
      ...this.#progress,
      /** Sorted only when somebody looks. */
      get flushLag() {
        return lag.lag;
      },
    });
  }
}

const STOPPED = new AppError("cancelled", "The streamer has stopped");

/** It can get better: the next connection records a gap. */
function walRemoved({ start }: StartPoint, cause: unknown): AppError {
  return new AppError("source", `Stream WAL from ${formatLsn(start)}: PostgreSQL has removed it`, {
    cause,
  });
}

/** Another writer has the stream. */
function isHeld(error: unknown): boolean {
  return error instanceof AppError && error.cause !== undefined && isKind(error.cause, "conflict");
}
