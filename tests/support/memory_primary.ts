/**
 * A {@link ReplicationSource} in memory: a primary whose WAL is a function of the position, that a test lets write, break,
 * end and promote. It remembers every status it was told, and checks them the way an administrator would want PostgreSQL
 * to: flush never goes back within a connection.
 *
 * @module
 */

import { abortable, type Waiting } from "../../src/base/abort.ts";
import { utf8 } from "../../src/base/bytes.ts";
import { AppError } from "../../src/base/failure.ts";
import {
  formatLsn,
  historyName,
  type Lsn,
  lsn,
  lsnAdd,
  lsnMin,
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

const SEGMENT_SIZE_BYTES = 1 << 20;
const BATCH_BYTES_MAX = 50_000;

interface Running {
  fate: Error | "ended" | undefined;
}

/** See the module comment. */
export class MemoryPrimary implements ReplicationSource {
  systemId = "7000000000000000001";
  /** Where each timeline but the current one was left. */
  readonly switchPoints: Lsn[] = [];
  end: Lsn = lsn(5n << 20n);
  slot: SlotState | undefined;
  /** PostgreSQL has invalidated the slot, for example because nobody used it. */
  isSlotInvalid = false;
  /** WAL before it has been removed. */
  oldest: Lsn = lsn(0n);
  /** `wal_sender_timeout`. */
  senderTimeoutMs: number | undefined = 60_000;
  readonly statuses: StandbyStatus[] = [];
  /** The next connect fails with it, once. */
  failConnect: Error | undefined;
  readonly #running = new Set<Running>();
  #wantsReply = false;
  connections = 0;
  /** How often the slot was dropped. */
  drops = 0;
  open = 0;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();

  get timeline(): TimelineId {
    return timelineId(this.switchPoints.length + 1);
  }

  /** The byte of every history at a position; each timeline has its own. */
  static byteAt(timeline: number, position: number): number {
    return (position * 31 + (position >>> 8) + timeline * 77) & 0xff;
  }

  change(): void {
    const changed = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    changed.resolve();
  }

  write(sizeBytes: number): Lsn {
    this.end = lsnAdd(this.end, sizeBytes);
    this.change();
    return this.end;
  }

  promote(): void {
    this.switchPoints.push(this.end);
    this.change();
  }

  askForReply(): void {
    this.#wantsReply = true;
    this.change();
  }

  /** Every running replication fails with it, or ends in good order; later ones work. */
  endAll(fate: Error | "ended"): void {
    for (const running of this.#running) running.fate = fate;
    this.#running.clear();
    this.change();
  }

  /** Resolves when `condition` holds; looked at after every status and change. */
  async until(condition: () => boolean, options: Waiting): Promise<void> {
    while (!condition()) await abortable(this.#changed.promise, options);
  }

  async connect(options: Waiting): Promise<ReplicationSession> {
    await Promise.resolve();
    options.signal.throwIfAborted();
    this.connections++;
    this.change();
    const failure = this.failConnect;
    this.failConnect = undefined;
    if (failure !== undefined) throw failure;
    this.open++;
    let closed = false;
    const started: Running[] = [];
    return {
      serverVersion: 170_002,
      identifySystem: () =>
        Promise.resolve({
          systemId: this.systemId,
          timeline: this.timeline,
          position: this.end,
        }),
      segmentSizeBytes: () => Promise.resolve(SEGMENT_SIZE_BYTES),
      senderTimeoutMs: () => Promise.resolve(this.senderTimeoutMs),
      dataDirectory: () => Promise.resolve(undefined),
      readSlot: () => Promise.resolve(this.slot),
      createSlot: () => {
        this.slot = { restartLsn: this.end, restartTimeline: this.timeline };
        return Promise.resolve();
      },
      dropSlot: async () => {
        await Promise.resolve();
        if (this.slot === undefined) throw new AppError("source", "Drop: there is no slot");
        if (this.#running.size > 0) throw new AppError("source", "Drop: the slot is in use");
        this.slot = undefined;
        this.isSlotInvalid = false;
        this.drops++;
        this.change();
      },
      timelineHistory: (timeline) =>
        Promise.resolve({
          fileName: historyName(timeline),
          content: utf8(
            this.switchPoints.slice(0, timeline - 1)
              .map((point, i) => `${i + 1}\t${formatLsn(point)}\ttest\n`).join(""),
          ),
        }),
      startReplication: (request) => {
        if (this.isSlotInvalid) {
          return Promise.reject(new AppError("conflict", "The slot has been invalidated"));
        }
        const running: Running = { fate: undefined };
        started.push(running);
        return Promise.resolve(this.#replication(request, running));
      },
      [Symbol.asyncDispose]: () => {
        if (!closed) this.open--;
        closed = true;
        for (const running of started) this.#running.delete(running);
        this.change();
        return Promise.resolve();
      },
    };
  }

  #replication(
    request: { readonly start: Lsn; readonly timeline: TimelineId },
    running: Running,
  ): Replication {
    let position = request.start;
    let over: ReplicationEnd | undefined;
    let flush = lsn(0n);
    this.#running.add(running);
    const next = (): ReplicationMessage[] | ReplicationEnd | undefined => {
      if (running.fate === "ended") return { kind: "ended" };
      if (running.fate !== undefined) throw running.fate;
      if (position < this.oldest) throw new AppError("not_found", "This WAL has been removed");
      const switchPoint = this.switchPoints[request.timeline - 1];
      const limit = switchPoint ?? this.end;
      if (position < limit) return this.#data(request.timeline, position, limit);
      if (switchPoint !== undefined) {
        return {
          kind: "timeline_switch",
          nextTimeline: timelineId(request.timeline + 1),
          nextStart: switchPoint,
        };
      }
      if (!this.#wantsReply) return undefined;
      this.#wantsReply = false;
      return [{ kind: "keepalive", walEnd: this.end, replyRequested: true }];
    };
    return {
      batches: async function* (this: MemoryPrimary, options: Waiting) {
        for (;;) {
          options.signal.throwIfAborted();
          const found = next();
          if (found === undefined) {
            await abortable(this.#changed.promise, options);
            continue;
          }
          if (!Array.isArray(found)) {
            over = found;
            return;
          }
          for (const message of found) {
            if (message.kind === "data") position = lsnAdd(position, message.bytes.length);
          }
          yield found;
        }
      }.bind(this),
      sendStatus: async (status) => {
        await Promise.resolve();
        if (status.flush < flush) throw new AppError("bug", "Status: the flush position went back");
        if (status.flush > position) throw new AppError("bug", "Status: flush of unsent WAL");
        flush = status.flush;
        this.#moveSlot(flush);
        this.statuses.push(status);
        this.change();
      },
      end: () => Promise.resolve(over ?? { kind: "ended" }),
    };
  }

  /** As PostgreSQL does: a flush of 0/0 says nothing, any other is the slot's new restart position, even a lower one. */
  #moveSlot(flush: Lsn): void {
    if (flush === 0n || this.slot === undefined) return;
    if (flush < (this.slot.restartLsn ?? 0n)) throw new AppError("bug", "The slot went back");
    const timeline = timelineId(this.#writerOf(this.timeline, Number(flush)));
    this.slot = { restartLsn: flush, restartTimeline: timeline };
  }

  #data(timeline: TimelineId, from: Lsn, limit: Lsn): ReplicationMessage[] {
    const to = lsnMin(limit, lsnAdd(from, BATCH_BYTES_MAX));
    const bytes = new Uint8Array(Number(to - from));
    for (let i = 0; i < bytes.length; i++) {
      const position = Number(from) + i;
      bytes[i] = MemoryPrimary.byteAt(this.#writerOf(timeline, position), position);
    }
    const half = bytes.length >> 1;
    const message = (start: Lsn, part: Uint8Array): ReplicationMessage => ({
      kind: "data",
      start,
      walEnd: this.end,
      bytes: part,
    });
    return half === 0
      ? [message(from, bytes)]
      : [message(from, bytes.subarray(0, half)), message(lsnAdd(from, half), bytes.subarray(half))];
  }

  /** Before a switch point a timeline has its ancestor's bytes. */
  #writerOf(timeline: number, position: number): number {
    const index = this.switchPoints.slice(0, timeline - 1).findIndex((point) => position < point);
    return index === -1 ? timeline : index + 1;
  }
}
