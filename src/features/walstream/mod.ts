/**
 * The streamer: WAL from PostgreSQL's walsender to a Klio server, with feedback that never says more than the server has
 * acknowledged as durable (design section 3; reference/klio.md section 6).
 *
 * @module
 */

export type { SlotLevel, SlotLimits, SlotStatus } from "./slot_governor.ts";
export { slotFields } from "./slot_watch.ts";
export { streamWal } from "./stream_wal.ts";
export {
  type FlushLag,
  STREAM_WAL_DEFAULTS,
  type StreamProgress,
  type StreamState,
  type StreamWalConfig,
  type StreamWalDeps,
} from "./types.ts";
