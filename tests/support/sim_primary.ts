/**
 * PostgreSQL as a simulated world needs it: writes, crashes, shuts down, is promoted in place or replaced by a standby that
 * lacks the latest WAL, loses its slot, removes WAL. It follows the rules of the real one: one connection per slot, WAL
 * that is gone is `not_found`, a start beyond its end or outside its history is refused, the slot moves with every flush.
 * Everything it is told about flushed positions goes to `onFlush`.
 *
 * @module
 */

import { abortable, type Waiting } from "../../src/base/abort.ts";
import { utf8 } from "../../src/base/bytes.ts";
import type { Clock } from "../../src/base/clock.ts";
import { AppError } from "../../src/base/failure.ts";
import {
  formatLsn,
  historyName,
  type Lsn,
  lsn,
  lsnAdd,
  lsnMin,
  segmentOffset,
  segmentStart,
  type TimelineId,
  timelineId,
} from "../../src/domain/lsn.ts";
import type {
  Replication,
  ReplicationEnd,
  ReplicationMessage,
  ReplicationSession,
  ReplicationSource,
  SlotState,
  StandbyStatus,
} from "../../src/ports/postgres.ts";
import type { SeededRandom } from "./seeded_random.ts";
import { SIM_SEGMENT_BYTES, simWal, writerOf } from "./sim_wal.ts";

const FIRST = lsn(5n * BigInt(SIM_SEGMENT_BYTES));
/** As walsender. */
const MESSAGE_BYTES_MAX = 128 << 10;
/** `wal_sender_timeout`. */
const SENDER_TIMEOUT_MS = 60_000;
/** WAL that every promotion and start writes, at least. */
const RECORD_BYTES = 112;

/** What {@link SimPrimary} needs. */
export interface SimPrimaryOptions {
  readonly clock: Clock;
  readonly random: SeededRandom;
  /** Hears of every status before the slot moves; may throw. */
  readonly onFlush: (timeline: TimelineId, status: StandbyStatus) => void;
}

interface Session {
  fate: Error | "ended" | undefined;
  streams: boolean;
  /** The slot's restart position as this session saw it last. */
  restartSeen: Lsn | undefined;
}

/** See the module comment. */
export class SimPrimary implements ReplicationSource {
  readonly systemId = "7300000000000000001";
  /** Where each timeline but the current one was left. */
  readonly switchPoints: Lsn[] = [];
  end: Lsn = lsnAdd(FIRST, RECORD_BYTES);
  /** WAL before it has been removed. */
  oldest: Lsn = FIRST;
  /** How often WAL that a slot had promised to keep was removed. */
  losses = 0;
  /** WAL that was sent, all repetitions included. */
  sentBytes = 0;
  /** Without a restart position: invalidated. */
  slot: { readonly restartLsn: Lsn | undefined } | undefined;
  isUp = true;
  readonly #options: SimPrimaryOptions;
  readonly #sessions = new Set<Session>();
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();

  constructor(options: SimPrimaryOptions) {
    this.#options = options;
  }

  get timeline(): TimelineId {
    return timelineId(this.switchPoints.length + 1);
  }

  #change(): void {
    const changed = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    changed.resolve();
  }

  write(sizeBytes: number): void {
    if (!this.isUp) return;
    this.end = lsnAdd(this.end, sizeBytes);
    this.#change();
  }

  /** `pg_switch_wal()`: the rest of the segment goes unused. */
  switchSegment(): void {
    const offset = segmentOffset(this.end, SIM_SEGMENT_BYTES);
    if (offset > 0) this.write(SIM_SEGMENT_BYTES - offset);
  }

  /** Connections break; new ones are refused until {@link start}. */
  crash(): void {
    this.isUp = false;
    this.breakAll(new AppError("source", "PostgreSQL is gone"));
  }

  /** Connections end in good order, then it is down. */
  shutDown(): void {
    this.isUp = false;
    this.breakAll("ended");
  }

  start(): void {
    if (this.isUp) return;
    this.isUp = true;
    this.write(RECORD_BYTES);
  }

  breakAll(fate: Error | "ended"): void {
    for (const session of this.#sessions) session.fate ??= fate;
    this.#sessions.clear();
    this.#change();
  }

  /** A standby from which we stream becomes the primary: connections stay. */
  promote(): void {
    this.switchPoints.push(this.end);
    this.write(RECORD_BYTES);
  }

  /** A standby takes over that has WAL up to `end` only. Its slot is as far as it can be, or missing. */
  failOver(end: Lsn, slot: "kept" | "missing"): void {
    this.breakAll(new AppError("source", "PostgreSQL is gone"));
    const restart = this.slot?.restartLsn;
    if (slot === "missing") this.slot = undefined;
    else if (restart !== undefined && restart > end) {
      this.slot = { restartLsn: end };
    }
    this.end = end;
    this.isUp = true;
    this.promote();
  }

  /** The slot vanishes or is invalidated, more is written, and a checkpoint removes what only the slot had kept. */
  loseWal(slot: "dropped" | "invalidated", writtenBytes: number): void {
    this.losses++;
    this.slot = slot === "dropped" ? undefined : { restartLsn: undefined };
    this.breakAll(new AppError("source", "terminating process to release replication slot"));
    this.write(writtenBytes);
    this.oldest = segmentStart(this.end, SIM_SEGMENT_BYTES);
  }

  // deno-lint-ignore require-await -- `async` turns what it throws into a rejection, here and below
  async connect(options: Waiting): Promise<ReplicationSession> {
    options.signal.throwIfAborted();
    if (!this.isUp) throw new AppError("source", "Connect to PostgreSQL: refused");
    const session: Session = { fate: undefined, streams: false, restartSeen: undefined };
    this.#sessions.add(session);
    const answer = async <T>(value: () => T): Promise<T> => {
      await this.#options.clock.sleep(this.#options.random.integer(0, 3), options);
      if (session.fate === "ended") throw new AppError("source", "PostgreSQL is shutting down");
      if (session.fate !== undefined) throw session.fate;
      return value();
    };
    return {
      serverVersion: 170_002,
      identifySystem: () =>
        answer(() => ({
          systemId: this.systemId,
          timeline: this.timeline,
          position: this.end,
        })),
      segmentSizeBytes: () => Promise.resolve(SIM_SEGMENT_BYTES),
      senderTimeoutMs: () => Promise.resolve(SENDER_TIMEOUT_MS),
      dataDirectory: () => Promise.resolve(undefined),
      readSlot: () =>
        answer(() => {
          session.restartSeen = this.slot?.restartLsn;
          return this.#slotState();
        }),
      createSlot: () =>
        answer(() => {
          if (this.slot !== undefined) throw new AppError("source", "The slot exists");
          this.slot = { restartLsn: this.end };
        }),
      dropSlot: () =>
        answer(() => {
          if (this.slot === undefined) throw new AppError("source", "There is no slot");
          this.#refuseSecondUse();
          this.slot = undefined;
        }),
      timelineHistory: (timeline) => answer(() => this.#history(timeline)),
      startReplication: (request) => answer(() => this.#startReplication(request, session)),
      [Symbol.asyncDispose]: () => {
        session.fate ??= new AppError("source", "The connection is closed");
        this.#sessions.delete(session);
        return Promise.resolve();
      },
    };
  }

  #slotState(): SlotState | undefined {
    const restartLsn = this.slot?.restartLsn;
    if (this.slot === undefined || restartLsn === undefined) return this.slot && NOTHING_KEPT;
    const restartTimeline = timelineId(writerOf(this.timeline, restartLsn, this.switchPoints));
    return { restartLsn, restartTimeline };
  }

  #refuseSecondUse(): void {
    if (![...this.#sessions].some((session) => session.streams)) return;
    throw new AppError("source", "The replication slot is active for another process");
  }

  #history(timeline: TimelineId): { readonly fileName: string; readonly content: Uint8Array } {
    const lines = this.switchPoints.slice(0, timeline - 1)
      .map((point, index) => `${index + 1}\t${formatLsn(point)}\tno recovery target specified\n`);
    return { fileName: historyName(timeline), content: utf8(lines.join("")) };
  }

  #startReplication(
    { start, timeline }: { readonly start: Lsn; readonly timeline: TimelineId },
    session: Session,
  ): Replication {
    this.#refuseSecondUse();
    if (this.slot === undefined) throw new AppError("source", "The replication slot is not there");
    if (this.slot.restartLsn === undefined) {
      throw new AppError("source", "The replication slot has been invalidated");
    }
    const limit = timeline > this.timeline ? undefined : this.#endOf(timeline);
    if (limit === undefined || start > limit) {
      throw new AppError(
        "source",
        `The start ${formatLsn(start)} on timeline ${timeline} is ahead of this server's history`,
      );
    }
    if (start < this.oldest) throw removed(start);
    session.streams = true;
    return this.#replication(timeline, start, session);
  }

  #endOf(timeline: TimelineId): Lsn {
    return this.switchPoints[timeline - 1] ?? this.end;
  }

  #replication(timeline: TimelineId, start: Lsn, session: Session): Replication {
    const { clock, random, onFlush } = this.#options;
    let position = start;
    let over: ReplicationEnd | undefined;
    // Another streamer may have moved it since this session looked: then it goes back, as PostgreSQL lets it.
    const mayGoBack = session.restartSeen !== this.slot?.restartLsn;
    let flush = lsn(0n);
    let heardMs = clock.monotonicMs();
    const next = (): ReplicationMessage[] | ReplicationEnd | undefined => {
      if (session.fate === "ended") return { kind: "ended" };
      if (session.fate !== undefined) throw session.fate;
      if (position < this.oldest) throw removed(position);
      if (position < this.#endOf(timeline)) {
        const batch = this.#batch(timeline, position);
        for (const message of batch) {
          if (message.kind === "data") position = lsnAdd(position, message.bytes.length);
        }
        return batch;
      }
      if (timeline === this.timeline) return undefined;
      return {
        kind: "timeline_switch",
        nextTimeline: timelineId(timeline + 1),
        nextStart: this.#endOf(timeline),
      };
    };
    return {
      batches: async function* (this: SimPrimary, options: Waiting) {
        for (;;) {
          options.signal.throwIfAborted();
          const changed = this.#changed.promise;
          const found = next();
          if (found === undefined) {
            await abortable(changed, options);
            continue;
          }
          if (!Array.isArray(found)) {
            over = found;
            return;
          }
          await clock.sleep(random.integer(0, 5), options);
          yield found;
        }
      }.bind(this),
      sendStatus: async (status) => {
        await Promise.resolve();
        if (session.fate === "ended") return;
        if (session.fate !== undefined) throw session.fate;
        const silentMs = clock.monotonicMs() - heardMs;
        if (silentMs > SENDER_TIMEOUT_MS) throw new AppError("bug", `Silent for ${silentMs} ms`);
        heardMs += silentMs;
        if (status.flush < flush) throw new AppError("bug", "The flush position went back");
        if (status.write < status.flush) throw new AppError("bug", "More is flushed than written");
        flush = status.flush;
        onFlush(timeline, status);
        this.#moveSlot(flush, mayGoBack);
      },
      end: async () => {
        await clock.sleep(random.integer(0, 3), NEVER);
        session.streams = false;
        if (over?.kind === "timeline_switch" && session.fate !== undefined) {
          throw session.fate === "ended"
            ? new AppError("source", "PostgreSQL is shutting down")
            : session.fate;
        }
        return over ?? { kind: "ended" };
      },
    };
  }

  /** As PostgreSQL does: a flush of 0/0 says nothing, any other is the slot's new restart position, even a lower one. */
  #moveSlot(flush: Lsn, mayGoBack: boolean): void {
    if (flush === 0n || this.slot === undefined) return;
    if (flush < (this.slot.restartLsn ?? 0n) && !mayGoBack) {
      throw new AppError("bug", "The slot went back");
    }
    this.slot = { restartLsn: flush };
  }

  #batch(timeline: TimelineId, start: Lsn): ReplicationMessage[] {
    const { random } = this.#options;
    const batch: ReplicationMessage[] = [];
    let from = start;
    for (let count = random.integer(1, 6); count > 0; count--) {
      const to = lsnMin(this.#endOf(timeline), lsnAdd(from, MESSAGE_BYTES_MAX));
      if (to === from) break;
      const bytes = simWal(timeline, { from, to }, this.switchPoints);
      batch.push({ kind: "data", start: from, walEnd: this.end, bytes });
      this.sentBytes += bytes.length;
      from = to;
    }
    if (random.float() < 0.1) {
      batch.push({ kind: "keepalive", walEnd: this.end, replyRequested: random.float() < 0.5 });
    }
    return batch;
  }
}

const NOTHING_KEPT: SlotState = { restartLsn: undefined, restartTimeline: undefined };
const NEVER: Waiting = { signal: new AbortController().signal };

function removed(position: Lsn): AppError {
  return new AppError("not_found", `WAL at ${formatLsn(position)} has already been removed`);
}
