/**
 * The streamer's shell: connects, negotiates the start, and carries out what `stream_machine.ts` decides, until it is asked
 * to stop. One connection after the other; what may be retried is retried with back-off, what cannot get better by
 * itself is thrown. Memory: about 3 MiB of WAL (what the source reads ahead, the batch in hand, its joined copy) plus what
 * the transport to the server holds.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import {
  AppError,
  describeError,
  type FailureKind,
  failureKind,
  isKind,
} from "../../base/failure.ts";
import type { Logger } from "../../base/log.ts";
import { backoffMs } from "../../base/retry.ts";
import { fromUtf8 } from "../../base/bytes.ts";
import {
  formatLsn,
  type Lsn,
  LSN_ZERO,
  lsnMin,
  segmentStart,
  type TimelineId,
  timelineId,
} from "../../domain/lsn.ts";
import { parseTimelineHistory, type TimelineSwitch } from "../../domain/timeline_history.ts";
import type { ReplicationSession, SlotState, SystemIdentification } from "../../ports/postgres.ts";
import type { WalAppendStream } from "../../ports/wal_server.ts";
import { FlushLagMeter } from "./flush_lag.ts";
import { enterHistory, parseAnswer, proposeStart, type StartPoint } from "./start_point.ts";
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

/** A connection and what was learnt on it. */
interface Connection {
  readonly session: ReplicationSession;
  readonly system: SystemIdentification;
  readonly segmentSizeBytes: number;
  readonly slot: SlotState;
}

class Streamer {
  readonly #deps: StreamWalDeps;
  readonly #config: StreamWalConfig;
  readonly #signal: AbortSignal;
  readonly #log: Logger;
  readonly #lag = new FlushLagMeter();
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
    failures: 0,
    lastError: undefined,
  };

  constructor(deps: StreamWalDeps, config: StreamWalConfig, signal: AbortSignal) {
    this.#deps = deps;
    this.#config = config;
    this.#signal = signal;
    this.#log = deps.log.with({ component: "streamer", cluster: config.cluster });
  }

  async run(): Promise<void> {
    this.#publish({});
    while (!this.#signal.aborted) {
      try {
        this.#publish({ state: "connecting" });
        await this.#connection();
      } catch (error) {
        if (!this.#signal.aborted) await this.#failed(error);
        else if (error !== this.#signal.reason) {
          this.#log.warn("Stopped without a clean end", {}, error);
        }
      }
    }
    this.#log.info("Stopped", this.#positions());
    this.#publish({ state: "stopped" });
  }

  /** Waits before the next try, or throws what cannot be cured. */
  async #failed(error: unknown): Promise<void> {
    const failures = this.#progress.failures + 1;
    const lastError = describeError(error);
    if (!RETRIED.has(failureKind(error))) {
      this.#publish({ state: "failed", failures, lastError });
      throw error;
    }
    if (this.#attempt === 0) {
      this.#log.warn("Streaming was interrupted, trying again", this.#positions(), error);
    }
    this.#lag.forget();
    this.#publish({ state: "connecting", failures, lastError });
    const waitMs = backoffMs(this.#config.backoff, this.#attempt++, this.#deps.random);
    try {
      await this.#deps.clock.sleep(waitMs, { signal: this.#signal });
    } catch (reason) {
      if (!this.#signal.aborted) throw reason;
    }
  }

  /** One connection to PostgreSQL, from its start to its end. */
  async #connection(): Promise<void> {
    const options = { signal: this.#signal };
    await using session = await this.#deps.source.connect(options);
    const system = await session.identifySystem(options);
    this.#publish({ systemId: system.systemId });
    const segmentSizeBytes = await session.segmentSizeBytes(options);
    const slot = await this.#ensureSlot(session);
    const connection = { session, system, segmentSizeBytes, slot };
    let at = await this.#negotiate(connection);
    let reported = LSN_ZERO;
    while (!this.#signal.aborted) {
      const result = await this.#stream(connection, at, reported);
      if (this.#signal.aborted) return;
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
      await this.#storeHistory(connection, end.nextTimeline);
      reported = lsnMin(result.reported, end.nextStart);
      at = {
        timeline: end.nextTimeline,
        start: segmentStart(end.nextStart, segmentSizeBytes),
      };
    }
  }

  async #ensureSlot(session: ReplicationSession): Promise<SlotState> {
    const options = { signal: this.#signal };
    const { slot } = this.#config;
    const existing = await session.readSlot(slot, options);
    if (existing !== undefined) return existing;
    await session.createSlot(slot, options);
    this.#log.info("Created the replication slot", { slot });
    const created = await session.readSlot(slot, options);
    if (created === undefined) {
      throw new AppError("source", `Create replication slot "${slot}": it vanished at once`);
    }
    return created;
  }

  /** Agrees with the server on the first segment; stores the history files that lead to PostgreSQL's timeline. */
  async #negotiate(connection: Connection): Promise<StartPoint> {
    const { system, slot, segmentSizeBytes } = connection;
    const proposal = proposeStart(system, slot, segmentSizeBytes);
    const answer = await this.#deps.server.requestStart(
      { cluster: this.#config.cluster, systemId: system.systemId, proposal },
      { signal: this.#signal },
    );
    const wanted = parseAnswer(answer, segmentSizeBytes);
    let ancestors: TimelineSwitch[] = [];
    for (let timeline = 2; timeline <= system.timeline; timeline++) {
      ancestors = await this.#storeHistory(connection, timelineId(timeline)) ?? ancestors;
    }
    const start = enterHistory(wanted, system, ancestors, segmentSizeBytes);
    this.#log.info("Negotiated the start", {
      proposal,
      answer,
      timeline: start.timeline,
      start: formatLsn(start.start),
    });
    return start;
  }

  /** Its ancestors; undefined when PostgreSQL has no such file, which only older timelines may lack. */
  async #storeHistory(
    connection: Connection,
    timeline: TimelineId,
  ): Promise<TimelineSwitch[] | undefined> {
    const options = { signal: this.#signal };
    let content: Uint8Array;
    try {
      ({ content } = await connection.session.timelineHistory(timeline, options));
    } catch (error) {
      // A restored cluster brings the history of its own timeline only; that file names all ancestors.
      if (!isKind(error, "not_found") || timeline >= connection.system.timeline) throw error;
      this.#log.warn("PostgreSQL has no history file of an older timeline", { timeline });
      return undefined;
    }
    const ancestors = parseTimelineHistory(timeline, fromUtf8(content));
    const { systemId } = connection.system;
    await this.#deps.server.putHistory(
      { cluster: this.#config.cluster, systemId, timeline, content },
      options,
    );
    return ancestors;
  }

  /** Streams one timeline until it ends or until we are asked to stop. */
  async #stream(
    connection: Connection,
    at: StartPoint,
    reported: Lsn,
  ): ReturnType<typeof streamTimeline> {
    const { session, segmentSizeBytes, slot } = connection;
    const { clock } = this.#deps;
    const options = { signal: this.#signal };
    await using append = await this.#openAppend(connection, at);
    const replication = await session.startReplication(
      { slot: this.#config.slot, start: append.start, timeline: at.timeline },
      options,
    );
    const machine = new StreamMachine({
      start: append.start,
      reported,
      reportMin: slot.restartLsn ?? LSN_ZERO,
      statusIntervalMs: this.#config.statusIntervalMs,
      nowMs: clock.monotonicMs(),
    });
    this.#log.info("Streaming", {
      timeline: at.timeline,
      start: formatLsn(append.start),
      segmentSizeBytes,
    });
    this.#publish({ state: "streaming", timeline: at.timeline, lastError: undefined });
    return await streamTimeline({
      replication,
      append,
      machine,
      clock,
      drainTimeoutMs: this.#config.drainTimeoutMs,
      onDrain: () => this.#publish({ state: "draining" }),
      onStep: (receivedBytes) => this.#stepped(machine, receivedBytes),
    }, options);
  }

  async #openAppend(connection: Connection, at: StartPoint): Promise<WalAppendStream> {
    const { system, segmentSizeBytes } = connection;
    const { cluster } = this.#config;
    try {
      return await this.#deps.server.append(
        { cluster, systemId: system.systemId, ...at, segmentSizeBytes },
        { signal: this.#signal },
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
