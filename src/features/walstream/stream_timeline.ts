/**
 * Runs one append stream against one replication: reads, sends, listens to acknowledgements and keeps the status flowing,
 * all at once. However reading ends (timeline over, PostgreSQL gone, asked to stop), what was received is still sent and
 * made durable before the stream is left; only `drainTimeoutMs` limits that, when we are to stop or PostgreSQL is gone.
 *
 * @module
 */

import { abortable, linkSignals, type Waiting } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError, isKind } from "../../base/failure.ts";
import { TaskGroup } from "../../base/task_group.ts";
import type { Lsn } from "../../domain/lsn.ts";
import type { Replication, ReplicationEnd, ReplicationMessage } from "../../ports/postgres.ts";
import type { WalAppendStream } from "../../ports/wal_server.ts";
import type { StreamEvent, StreamMachine } from "./stream_machine.ts";

/** The two ends and what decides between them. */
export interface TimelineStream {
  readonly replication: Replication;
  readonly append: WalAppendStream;
  readonly machine: StreamMachine;
  readonly clock: Clock;
  readonly drainTimeoutMs: number;
  readonly onDrain: () => void;
  /** After each event, with the bytes it brought. */
  readonly onStep: (receivedBytes: number) => void;
}

/** How it went. */
export interface TimelineResult {
  /** `wal_removed`: PostgreSQL no longer has what comes next. */
  readonly end: ReplicationEnd | WalRemoved;
  readonly reported: Lsn;
}

/** PostgreSQL no longer has the WAL that was asked for. */
export interface WalRemoved {
  readonly kind: "wal_removed";
  readonly cause: unknown;
}

/** See the module comment. An abort drains and then returns; it is no failure. */
export async function streamTimeline(
  stream: TimelineStream,
  options: Waiting,
): Promise<TimelineResult> {
  return await new TimelineRun(stream, options.signal).run();
}

class TimelineRun {
  readonly #stream: TimelineStream;
  readonly #stop: AbortSignal;
  /** Reading is over by failure or because we are to stop: the rest has a deadline. */
  readonly #hurry = Promise.withResolvers<void>();
  readonly #acknowledged = Promise.withResolvers<void>();
  #finishing = false;
  #sourceFailure: { readonly error: unknown } | undefined;
  #end: ReplicationEnd = { kind: "ended" };

  constructor(stream: TimelineStream, stop: AbortSignal) {
    this.#stream = stream;
    this.#stop = stop;
  }

  async run(): Promise<TimelineResult> {
    const onStop = () => {
      this.#stream.onDrain();
      this.#hurry.resolve();
    };
    if (this.#stop.aborted) onStop();
    else this.#stop.addEventListener("abort", onStop, { once: true });
    try {
      await using group = new TaskGroup(new AbortController().signal);
      // Ends the tasks that only accompany the others.
      using accompanied = linkSignals(group.signal);
      group.start((signal) => this.#acknowledge(signal));
      group.start(() => this.#keepStatusFlowing(accompanied.signal));
      group.start(() => this.#limitDrain(accompanied.signal));
      group.start(async (signal) => {
        await this.#pump(signal);
        accompanied.abort(DONE);
      });
      await group.join();
    } catch (error) {
      // A drain that took too long after PostgreSQL had failed: that failure is what counts, see below.
      if (error !== this.#sourceFailure?.error) throw error;
    } finally {
      this.#stop.removeEventListener("abort", onStop);
    }
    return { end: this.#endOrThrow(), reported: this.#stream.machine.reported };
  }

  #endOrThrow(): TimelineResult["end"] {
    if (this.#sourceFailure === undefined) return this.#end;
    const { error } = this.#sourceFailure;
    if (isKind(error, "not_found")) return { kind: "wal_removed", cause: error };
    throw error;
  }

  async #pump(signal: AbortSignal): Promise<void> {
    const { replication, append } = this.#stream;
    await this.#read(signal);
    this.#finishing = true;
    await append.finish({ signal });
    // Resolves after PostgreSQL was told of the last position, too.
    await abortable(this.#acknowledged.promise, { signal });
    if (this.#sourceFailure === undefined) this.#end = await replication.end({ signal });
  }

  /** Reads and sends until reading is over; a failure of PostgreSQL is kept for later. */
  async #read(signal: AbortSignal): Promise<void> {
    using reading = linkSignals(this.#stop, signal);
    const batches = this.#stream.replication.batches(reading)[Symbol.asyncIterator]();
    for (;;) {
      const batch = batches.next();
      await this.#flushWhenDue(batch, signal);
      let next: Awaited<typeof batch>;
      try {
        next = await batch;
      } catch (error) {
        signal.throwIfAborted();
        if (!this.#stop.aborted) {
          this.#sourceFailure = { error };
          this.#hurry.resolve();
        }
        break;
      }
      if (next.done === true) break;
      await this.#step({ kind: "messages", messages: next.value }, signal);
      if (this.#stop.aborted || this.#isLastWordWanted(next.value)) break;
    }
    await this.#step({ kind: "flush" }, signal);
  }

  /** Sends what is held if its time comes before the batch does. Only the reader sends, so that the order stays. */
  async #flushWhenDue(batch: Promise<unknown>, signal: AbortSignal): Promise<void> {
    const { clock, machine } = this.#stream;
    const dueMs = machine.flushDueMs;
    if (dueMs === undefined) return;
    using waiting = linkSignals(signal);
    const waitMs = Math.max(0, dueMs - clock.monotonicMs());
    const arrived = batch.then(() => false, () => false); // the caller looks at a failure
    const due = clock.sleep(waitMs, waiting).then(() => true, () => false); // rejects when nobody waits any more
    const isDue = await Promise.race([arrived, due]);
    waiting.abort(DONE);
    if (isDue) await this.#step({ kind: "flush" }, signal);
  }

  /**
   * A server that confirms whole segments only leaves PostgreSQL waiting when it shuts down: then it asks for a reply until
   * all it has sent is flushed. It asks at no other time, since our status is never late. Ending the stream has the rest
   * confirmed, too.
   */
  #isLastWordWanted(batch: readonly ReplicationMessage[]): boolean {
    const { append, machine } = this.#stream;
    return append.confirmsSegmentsOnly === true &&
      batch.some((message) => message.kind === "keepalive" && message.replyRequested) &&
      machine.received >= machine.walEnd && machine.durable < machine.received;
  }

  async #acknowledge(signal: AbortSignal): Promise<void> {
    const positions = this.#stream.append.acknowledgements()[Symbol.asyncIterator]();
    for (;;) {
      const next = await abortable(positions.next(), { signal });
      if (next.done === true) break;
      await this.#step({ kind: "durable", position: next.value }, signal);
    }
    if (!this.#finishing) {
      throw new AppError("repository", "Stream WAL: the server ended the stream by itself");
    }
    this.#acknowledged.resolve();
  }

  /** Whatever else waits, PostgreSQL hears of us in time: else it takes us for dead. */
  async #keepStatusFlowing(signal: AbortSignal): Promise<void> {
    const { clock, machine } = this.#stream;
    for (;;) {
      const waitMs = Math.max(0, machine.statusDueMs - clock.monotonicMs());
      try {
        await clock.sleep(waitMs, { signal });
      } catch (reason) {
        if (signal.aborted) return;
        throw reason;
      }
      await this.#step({ kind: "tick" }, signal);
    }
  }

  async #limitDrain(signal: AbortSignal): Promise<void> {
    const { clock, drainTimeoutMs } = this.#stream;
    try {
      await abortable(this.#hurry.promise, { signal });
      await clock.sleep(drainTimeoutMs, { signal });
    } catch (reason) {
      if (signal.aborted) return;
      throw reason;
    }
    if (this.#sourceFailure !== undefined) throw this.#sourceFailure.error;
    throw new AppError(
      "timeout",
      `Finish the WAL stream: the server has not acknowledged all within ${drainTimeoutMs} ms`,
    );
  }

  async #step(event: StreamEvent, signal: AbortSignal): Promise<void> {
    const { machine, clock, replication, append, onStep } = this.#stream;
    const before = machine.received;
    const effects = machine.step(event, clock.monotonicMs());
    onStep(Number(machine.received - before));
    for (const effect of effects) {
      if (effect.kind === "send") {
        await append.send(effect.position, effect.bytes, { signal });
      } else if (this.#sourceFailure === undefined) {
        await this.#sendStatus(replication, effect.status);
      }
    }
  }

  /** A broken connection is noticed here or by the reader, whoever comes first: the rest is finished in both cases. */
  async #sendStatus(
    replication: Replication,
    status: Parameters<Replication["sendStatus"]>[0],
  ): Promise<void> {
    try {
      await replication.sendStatus(status);
    } catch (error) {
      this.#sourceFailure ??= { error };
      this.#hurry.resolve();
    }
  }
}

const DONE = new AppError("cancelled", "The stream is over");
