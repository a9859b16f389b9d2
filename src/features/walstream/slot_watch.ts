/**
 * Watches how much WAL the slot holds back, beside the streaming: from the stream itself while it is caught up, otherwise
 * by asking PostgreSQL on a short connection of its own, because then the stream may be what is stuck. Says so in the log
 * when it becomes worrying and when it is over; decides nothing itself (`slot_governor.ts`).
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import type { Logger } from "../../base/log.ts";
import {
  lastSegmentStart,
  type Lsn,
  lsnDistance,
  segmentName,
  type TimelineId,
} from "../../domain/lsn.ts";
import { assessSlot, remember, type SlotSample, type SlotStatus } from "./slot_governor.ts";
import type { StreamWalConfig, StreamWalDeps } from "./types.ts";

/** Where the end of PostgreSQL's WAL lies, and where the slot holds it back from. */
export interface SlotPosition {
  readonly restart: Lsn;
  readonly walEnd: Lsn;
  readonly timeline: TimelineId;
}

/** Where PostgreSQL keeps its files, as far as it told. */
export interface DataLocation {
  readonly directory: string;
  readonly segmentSizeBytes: number;
}

/** What the watch needs of the streamer. */
export interface SlotWatch {
  readonly deps: StreamWalDeps;
  readonly config: StreamWalConfig;
  readonly log: Logger;
  /** Undefined unless the stream is caught up, and so knows. */
  position(): SlotPosition | undefined;
  location(): DataLocation | undefined;
  onStatus(status: SlotStatus): void;
  /** The slot must be given up. May be told again until it is done. */
  onRelease(status: SlotStatus): void;
}

/** Runs until `signal` aborts; throws nothing but bugs. */
export async function watchSlot(watch: SlotWatch, options: Waiting): Promise<void> {
  const { signal } = options;
  const { deps: { clock }, config } = watch;
  let history: SlotSample[] = [];
  let level: SlotStatus["level"] = "ok";
  let isBlind = false;
  while (!signal.aborted) {
    try {
      await clock.sleep(config.slotWatchIntervalMs, options);
      const position = watch.position() ?? await askPostgres(watch, options);
      const sample: SlotSample = {
        atMs: clock.monotonicMs(),
        retainedBytes: position === undefined
          ? 0
          : Math.max(0, lsnDistance(position.restart, position.walEnd)),
        freeBytes: position === undefined ? undefined : await freeBytes(watch, position),
      };
      history = remember(history, sample);
      isBlind = false;
    } catch (error) {
      if (signal.aborted) return;
      if (!isBlind) watch.log.warn("Cannot see what WAL the slot holds back", {}, error);
      isBlind = true;
      continue;
    }
    const status = assessSlot(history, config.slotLimits);
    if (status === undefined) continue;
    watch.onStatus(status);
    if (status.level !== level) report(watch, status);
    level = status.level;
    if (status.releaseDue) watch.onRelease(status);
  }
}

/** Undefined while the slot does not exist or holds nothing back. */
async function askPostgres(
  { deps, config }: SlotWatch,
  options: Waiting,
): Promise<SlotPosition | undefined> {
  await using session = await deps.source.connect(options);
  const slot = await session.readSlot(config.slot, options);
  if (slot?.restartLsn === undefined) return undefined;
  const { position, timeline } = await session.identifySystem(options);
  return { restart: slot.restartLsn, walEnd: position, timeline };
}

/** Only of a directory that has the very segment PostgreSQL writes: the same path may be another volume here. */
async function freeBytes(watch: SlotWatch, position: SlotPosition): Promise<number | undefined> {
  const { files } = watch.deps;
  const location = watch.location();
  if (files === undefined || location === undefined) return undefined;
  const directory = `${location.directory}/pg_wal`;
  const { segmentSizeBytes } = location;
  const last = lastSegmentStart(position.walEnd, segmentSizeBytes);
  const proof = `${directory}/${segmentName(position.timeline, last, segmentSizeBytes)}`;
  try {
    await files.stat(proof);
    return (await files.space(directory)).freeBytes;
  } catch {
    return undefined; // not our machine, or not our rights: there is no forecast then
  }
}

function report({ log, config }: SlotWatch, status: SlotStatus): void {
  const fields = { slot: config.slot, ...slotFields(status) };
  if (status.level === "ok") log.info("The slot holds back little WAL again", fields);
  else if (status.level === "warning") log.warn("The slot holds back much WAL", fields);
  else log.error("The slot holds back so much WAL that PostgreSQL's disk is in danger", fields);
}

/** A status as fields of a log line. */
export function slotFields(status: SlotStatus): Record<string, number | undefined> {
  const { fullInMs } = status;
  return {
    slot_retained_bytes: status.retainedBytes,
    slot_growth_bytes_per_second: Math.round(status.growthBytesPerSecond),
    slot_room_bytes: status.roomBytes,
    slot_full_in_seconds: fullInMs === undefined ? undefined : Math.round(fullInMs / 1000),
  };
}
