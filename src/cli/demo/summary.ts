/**
 * The demo's end: a summary that a person enjoys, or one JSON object for a machine.
 *
 * @module
 */

import { formatBytes, formatCount, formatDuration, formatRate } from "../../base/format.ts";

/** A moment of the story. */
export interface DemoEvent {
  readonly atMs: number;
  readonly label: string;
}

/** What the story measured. */
export interface DemoResult {
  readonly ok: boolean;
  readonly pgVersion: string;
  readonly walBytes: number;
  readonly backup: {
    readonly bytes: number;
    readonly files: number;
    readonly newBytes: number;
    readonly deduplicatedBytes: number;
    readonly seconds: number;
  };
  readonly pitrSeconds: number;
  readonly latestSeconds: number;
  readonly pitrRowsEqual: boolean;
  readonly pitrRows: number;
  readonly ackedCommits: number;
  readonly lostAckedCommits: number;
  readonly flushLagMsP50: number;
  readonly flushLagMsP99: number;
  readonly flushLagSamples: number;
  readonly totalSeconds: number;
  readonly events: readonly DemoEvent[];
}

const AXIS_CELLS = 76;

/** One JSON object on one line. */
export function resultJson(r: DemoResult): string {
  const round = (value: number) => Math.round(value * 1000) / 1000;
  return JSON.stringify({
    ok: r.ok,
    pg_version: r.pgVersion,
    wal_bytes: r.walBytes,
    backup_bytes: r.backup.bytes,
    backup_files: r.backup.files,
    backup_new_bytes: r.backup.newBytes,
    backup_deduplicated_bytes: r.backup.deduplicatedBytes,
    backup_seconds: round(r.backup.seconds),
    restore_seconds: round(r.pitrSeconds),
    restore_latest_seconds: round(r.latestSeconds),
    pitr_rows: r.pitrRows,
    pitr_rows_equal: r.pitrRowsEqual,
    acked_commits: r.ackedCommits,
    lost_acked_commits: r.lostAckedCommits,
    flush_lag_ms_p50: round(r.flushLagMsP50),
    flush_lag_ms_p99: round(r.flushLagMsP99),
    flush_lag_samples: r.flushLagSamples,
    total_seconds: round(r.totalSeconds),
  });
}

/** The axis of the story: a letter per event, placed by time. */
export function timeline(events: readonly DemoEvent[]): string {
  const endMs = Math.max(1, ...events.map((e) => e.atMs));
  const cells: string[] = Array.from({ length: AXIS_CELLS }, () => "─");
  const legend: string[] = [];
  let next = 0;
  for (const [index, event] of events.entries()) {
    // Events close together move right, but always leave room for those that follow.
    const room = AXIS_CELLS - (events.length - index);
    const cell = Math.min(
      room,
      Math.max(next, Math.round((event.atMs / endMs) * (AXIS_CELLS - 1))),
    );
    const letter = String.fromCharCode(65 + index);
    cells[cell] = letter;
    next = cell + 1;
    legend.push(`  ${letter}  ${formatDuration(event.atMs).padStart(8)}  ${event.label}`);
  }
  return [`  ${cells.join("")}`, ...legend].join("\n");
}

/** The summary for a person. */
export function summary(r: DemoResult): string {
  const share = r.backup.bytes === 0 ? 0 : (100 * r.backup.deduplicatedBytes) / r.backup.bytes;
  const rows: readonly (readonly [string, string])[] = [
    ["PostgreSQL", r.pgVersion],
    ["WAL streamed", formatBytes(r.walBytes)],
    [
      "base backup",
      `${formatBytes(r.backup.bytes)} in ${formatDuration(r.backup.seconds * 1000)} (${
        formatRate(r.backup.bytes, r.backup.seconds * 1000)
      }), ${share.toFixed(0)} % deduplicated`,
    ],
    [
      "flush lag",
      `p50 ${r.flushLagMsP50.toFixed(1)} ms, p99 ${r.flushLagMsP99.toFixed(1)} ms (${
        formatCount(r.flushLagSamples)
      } samples by PostgreSQL itself)`,
    ],
    [
      "restore to T",
      `${formatDuration(r.pitrSeconds * 1000)}, ${formatCount(r.pitrRows)} rows ${
        r.pitrRowsEqual ? "equal, checksum equal" : "DIFFER"
      }`,
    ],
    [
      "after the crash",
      `${formatDuration(r.latestSeconds * 1000)}, ${
        formatCount(r.ackedCommits)
      } commits acknowledged, ${formatCount(r.lostAckedCommits)} lost`,
    ],
    ["whole story", formatDuration(r.totalSeconds * 1000)],
  ];
  return [
    "",
    timeline(r.events),
    "",
    ...rows.map(([name, text]) => `  ${name.padEnd(16)} ${text}`),
    "",
    r.ok
      ? "  Everything that klio acknowledged came back."
      : "  DATA DIFFERS: this is a bug in klio, please report it.",
    "",
    "",
  ].join("\n");
}
