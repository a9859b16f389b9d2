/**
 * What WAL the replication slot holds back means for the primary's disk: how fast it grows, when the room is gone, how loud
 * to be, and whether the configured last step is due. Pure: samples in, an assessment out. A slot is only given up on two
 * samples in a row that are over the budget and not shrinking, never on one, and never by a forecast.
 *
 * @module
 */

/** What was seen at one moment. */
export interface SlotSample {
  /** Monotonic. */
  readonly atMs: number;
  /** From the slot's restart position to the end of WAL. */
  readonly retainedBytes: number;
  /** On the file system of `pg_wal`; undefined when that cannot be seen from here. */
  readonly freeBytes: number | undefined;
}

/** What is allowed; part of the streamer's settings. */
export interface SlotLimits {
  /** WAL that the slot may hold back; undefined for no such limit. */
  readonly budgetBytes: number | undefined;
  /** `over_budget` gives the slot up, with the WAL that it holds, when the budget is exceeded. */
  readonly release: "never" | "over_budget";
}

/** How much a person should care. */
export type SlotLevel = "ok" | "warning" | "error";

/** See the module comment. */
export interface SlotStatus {
  readonly retainedBytes: number;
  /** Over the samples that are kept; 0 while shrinking or not known yet. */
  readonly growthBytesPerSecond: number;
  /** What is left of the budget or the file system, whichever is less; undefined when neither is known. */
  readonly roomBytes: number | undefined;
  /** At the present growth; undefined when it does not grow, or the room is not known. */
  readonly fullInMs: number | undefined;
  readonly level: SlotLevel;
  readonly releaseDue: boolean;
}

/** Samples older than that say nothing about the present growth. */
export const WINDOW_MS = 10 * 60_000;
/** A growth measured over less than that is a burst, not a trend. */
const TREND_MS_MIN = 60_000;
/** Less than that is the ordinary ebb and flow. */
const RETAINED_BYTES_MIN = 64 << 20;
const WARNING = { usage: 0.5, fullInMs: 6 * 3_600_000 };
const ERROR = { usage: 0.8, fullInMs: 3_600_000 };

/** The samples that still count, with the new one; a clock that went back, or stood still for long, starts anew. */
export function remember(history: readonly SlotSample[], sample: SlotSample): SlotSample[] {
  const last = history.at(-1);
  if (last !== undefined && sample.atMs <= last.atMs) return [sample];
  return [...history.filter((old) => sample.atMs - old.atMs <= WINDOW_MS), sample];
}

/** `history` comes from {@link remember}; undefined while it is empty. */
export function assessSlot(
  history: readonly SlotSample[],
  limits: SlotLimits,
): SlotStatus | undefined {
  const [first] = history;
  const last = history.at(-1);
  if (first === undefined || last === undefined) return undefined;
  const { retainedBytes, freeBytes } = last;
  const { budgetBytes } = limits;
  const elapsedMs = last.atMs - first.atMs;
  const growthBytesPerSecond = elapsedMs < TREND_MS_MIN
    ? 0
    : Math.max(0, (retainedBytes - first.retainedBytes) * 1000 / elapsedMs);
  const rooms = [freeBytes, budgetBytes === undefined ? undefined : budgetBytes - retainedBytes]
    .filter((room) => room !== undefined);
  const roomBytes = rooms.length === 0 ? undefined : Math.max(0, Math.min(...rooms));
  const fullInMs = roomBytes === undefined || growthBytesPerSecond === 0
    ? undefined
    : roomBytes / growthBytesPerSecond * 1000;
  const usage = budgetBytes === undefined ? 0 : retainedBytes / budgetBytes;
  const exceeds = (threshold: { readonly usage: number; readonly fullInMs: number }) =>
    usage >= threshold.usage ||
    fullInMs !== undefined && fullInMs <= threshold.fullInMs && retainedBytes >= RETAINED_BYTES_MIN;
  return {
    retainedBytes,
    growthBytesPerSecond,
    roomBytes,
    fullInMs,
    level: exceeds(ERROR) ? "error" : exceeds(WARNING) ? "warning" : "ok",
    releaseDue: limits.release === "over_budget" && isStuckOver(budgetBytes, history),
  };
}

function isStuckOver(budgetBytes: number | undefined, history: readonly SlotSample[]): boolean {
  const [before, now] = history.slice(-2);
  if (budgetBytes === undefined || before === undefined || now === undefined) return false;
  return before.retainedBytes > budgetBytes && now.retainedBytes > budgetBytes &&
    now.retainedBytes >= before.retainedBytes;
}
