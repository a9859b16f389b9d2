/**
 * Everything between a connection to PostgreSQL and the first byte of WAL: what kind of system it is, the slot, the start
 * that server and PostgreSQL agree on, and the history files that lead there. Also what must happen when the usual start
 * is impossible: WAL that PostgreSQL has removed becomes a gap that the archive records, loudly; a slot that is to be given
 * up, or that holds back nothing any more, is dropped. A slot is only created when the server is there to take its WAL.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { AppError, isKind } from "../../base/failure.ts";
import { fromUtf8 } from "../../base/bytes.ts";
import type { Logger } from "../../base/log.ts";
import { formatLsn, segmentStart, type TimelineId, timelineId } from "../../domain/lsn.ts";
import { parseTimelineHistory, type TimelineSwitch } from "../../domain/timeline_history.ts";
import type { ReplicationSession, SlotState, SystemIdentification } from "../../ports/postgres.ts";
import type { WalServer } from "../../ports/wal_server.ts";
import type { SlotStatus } from "./slot_governor.ts";
import { type DataLocation, slotFields } from "./slot_watch.ts";
import { enterHistory, parseAnswer, proposeStart, type StartPoint } from "./start_point.ts";
import type { StreamWalConfig } from "./types.ts";

/** A connection and what was learnt on it. */
export interface Connection {
  readonly session: ReplicationSession;
  readonly system: SystemIdentification;
  readonly segmentSizeBytes: number;
  /** Undefined when PostgreSQL did not tell. */
  readonly location: DataLocation | undefined;
  readonly statusIntervalMs: number;
  readonly slot: SlotState;
  readonly signal: AbortSignal;
}

/** See the module comment. Lives as long as the streamer: a gap is found on one connection and recorded on the next. */
export class Negotiation {
  readonly #server: WalServer;
  readonly #config: StreamWalConfig;
  readonly #log: Logger;
  /** Why the slot must be given up. */
  #release: SlotStatus | undefined;
  /** PostgreSQL refuses to stream from it. */
  #isSlotInvalid = false;
  /** Where PostgreSQL has no WAL any more. */
  #lost: StartPoint | undefined;
  /** What we proposed ourselves, which is the answer of an empty archive. */
  #proposed: StartPoint | undefined;

  constructor(server: WalServer, config: StreamWalConfig, log: Logger) {
    this.#server = server;
    this.#config = config;
    this.#log = log;
  }

  /** The next connection drops the slot. False when that is settled already. */
  releaseSlot(why: SlotStatus): boolean {
    if (this.#release !== undefined) return false;
    this.#release = why;
    return true;
  }

  /** PostgreSQL has no WAL at this start: the next connection records the gap. */
  walRemoved(start: StartPoint): void {
    this.#lost = start;
  }

  /** PostgreSQL has invalidated the slot: the next connection replaces it. */
  slotInvalidated(): void {
    this.#isSlotInvalid = true;
  }

  /** Learns what the system is and has a slot ready. */
  async connect(session: ReplicationSession, options: Waiting): Promise<Connection> {
    const system = await session.identifySystem(options);
    const segmentSizeBytes = await session.segmentSizeBytes(options);
    const directory = await session.dataDirectory(options);
    const senderTimeoutMs = await session.senderTimeoutMs(options) ?? Infinity;
    return {
      session,
      system,
      segmentSizeBytes,
      location: directory === undefined ? undefined : { directory, segmentSizeBytes },
      statusIntervalMs: Math.min(this.#config.statusIntervalMs, Math.ceil(senderTimeoutMs / 3)),
      slot: await this.#ensureSlot(session, system, segmentSizeBytes, options),
      signal: options.signal,
    };
  }

  async #ensureSlot(
    session: ReplicationSession,
    system: SystemIdentification,
    segmentSizeBytes: number,
    options: Waiting,
  ): Promise<SlotState> {
    const { slot, cluster } = this.#config;
    const existing = await session.readSlot(slot, options);
    if (existing !== undefined) {
      if (!this.#mustDrop(existing, segmentSizeBytes)) return existing;
      await session.dropSlot(slot, options);
      this.#reportDrop(existing);
    }
    this.#release = undefined;
    this.#isSlotInvalid = false;
    const proposal = proposeStart(system, undefined, segmentSizeBytes);
    await this.#server.requestStart({ cluster, systemId: system.systemId, proposal }, options);
    await session.createSlot(slot, options);
    this.#log.info("Created the replication slot", { slot });
    const created = await session.readSlot(slot, options);
    if (created === undefined) {
      throw new AppError("source", `Create replication slot "${slot}": it vanished at once`);
    }
    return created;
  }

  #mustDrop({ restartLsn }: SlotState, segmentSizeBytes: number): boolean {
    if (this.#release !== undefined || this.#isSlotInvalid || restartLsn === undefined) return true;
    // It claims to hold WAL that PostgreSQL has removed.
    const lost = this.#lost;
    return lost !== undefined && segmentStart(restartLsn, segmentSizeBytes) <= lost.start;
  }

  #reportDrop({ restartLsn }: SlotState): void {
    const fields = {
      slot: this.#config.slot,
      restartLsn: restartLsn === undefined ? undefined : formatLsn(restartLsn),
    };
    if (this.#release === undefined) {
      this.#log.warn("Dropped the replication slot, it held back no WAL", fields);
      return;
    }
    this.#log.error(
      "Gave up the replication slot to protect PostgreSQL's disk, take a new base backup when WAL streams again",
      { ...fields, ...slotFields(this.#release) },
    );
  }

  /** Agrees with the server on the first segment; stores the history files that lead to PostgreSQL's timeline. */
  async negotiate(connection: Connection): Promise<StartPoint> {
    const { system, slot, segmentSizeBytes, signal } = connection;
    const proposal = proposeStart(system, slot, segmentSizeBytes);
    const request = { cluster: this.#config.cluster, systemId: system.systemId, proposal };
    const proposed = parseAnswer(proposal, segmentSizeBytes);
    await this.#recordGap(request, proposed, { signal });
    this.#proposed = proposed;
    const answer = await this.#server.requestStart(request, { signal });
    const wanted = parseAnswer(answer, segmentSizeBytes);
    let ancestors: TimelineSwitch[] = [];
    for (let timeline = 2; timeline <= system.timeline; timeline++) {
      ancestors = await this.storeHistory(connection, timelineId(timeline)) ?? ancestors;
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

  /** From here on the archive has a hole, and says so. */
  async #recordGap(
    request: Parameters<WalServer["resetStream"]>[0],
    next: StartPoint,
    options: Waiting,
  ): Promise<void> {
    const lost = this.#lost;
    if (lost === undefined) return;
    if (next.start > lost.start) {
      try {
        await this.#server.resetStream(request, options);
      } catch (error) {
        if (!isKind(error, "usage")) throw error;
        if (lost.start !== this.#proposed?.start) {
          // The archive has moved on meanwhile: another streamer recorded the gap. The next answer says what is needed now.
          this.#lost = undefined;
          return;
        }
        // An empty archive has nothing before the hole, and starts where it is told to.
      }
      this.#log.error(
        "WAL is lost, PostgreSQL had removed it before it was archived: take a new base backup now",
        {
          lostFrom: formatLsn(lost.start),
          lostTo: formatLsn(next.start),
          fromTimeline: lost.timeline,
          toTimeline: next.timeline,
        },
      );
    }
    this.#lost = undefined;
  }

  /** Its ancestors; undefined when PostgreSQL has no such file, which only older timelines may lack. */
  async storeHistory(
    connection: Connection,
    timeline: TimelineId,
  ): Promise<TimelineSwitch[] | undefined> {
    const { session, system, signal } = connection;
    let content: Uint8Array;
    try {
      ({ content } = await session.timelineHistory(timeline, { signal }));
    } catch (error) {
      // A restored cluster brings the history of its own timeline only; that file names all ancestors.
      if (!isKind(error, "not_found") || timeline >= system.timeline) throw error;
      this.#log.warn("PostgreSQL has no history file of an older timeline", { timeline });
      return undefined;
    }
    const ancestors = parseTimelineHistory(timeline, fromUtf8(content));
    await this.#server.putHistory(
      { cluster: this.#config.cluster, systemId: system.systemId, timeline, content },
      { signal },
    );
    return ancestors;
  }
}
