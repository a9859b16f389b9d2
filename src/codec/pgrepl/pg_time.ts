/**
 * PostgreSQL's TimestampTz in protocol messages: microseconds since 2000-01-01 00:00 UTC, signed 64 bit.
 *
 * @module
 */

const EPOCH_2000_MS = 946_684_800_000;

/** Milliseconds since the Unix epoch as PostgreSQL's microseconds since 2000. */
export function pgTimeFromMs(ms: number): bigint {
  return BigInt(Math.round((ms - EPOCH_2000_MS) * 1000));
}

/** PostgreSQL's microseconds since 2000 as milliseconds since the Unix epoch. */
export function msFromPgTime(microseconds: bigint): number {
  return Number(microseconds) / 1000 + EPOCH_2000_MS;
}
