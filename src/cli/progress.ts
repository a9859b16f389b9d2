/**
 * Progress of long work: one redrawn line with bar, rate and time to go on a terminal; otherwise an event in the log at the
 * start of each phase and every ten seconds. Drawing never fails the work.
 *
 * @module
 */

import type { Clock } from "../base/clock.ts";
import { formatBytes, formatDuration, formatRate } from "../base/format.ts";
import type { Logger } from "../base/log.ts";

/** How far the work is. */
export interface ProgressUpdate {
  /** For example `copying pgdata`. */
  readonly phase: string;
  readonly doneBytes: number;
  /** Unknown while the total is still being counted. */
  readonly totalBytes?: number;
  readonly doneFiles?: number;
}

const DRAW_INTERVAL_MS = 100;
const LOG_INTERVAL_MS = 10_000;
const BAR_CELLS = 28;

/** A bar of `cells` characters. */
export function bar(fraction: number, cells: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, fraction)) * cells * 8);
  const full = Math.floor(eighths / 8);
  const rest = eighths % 8;
  const tail = rest === 0 ? "" : String.fromCodePoint(0x2590 - rest);
  return ("█".repeat(full) + tail).padEnd(cells, "░");
}

/** See the module comment. `done` ends the line. */
export class Progress {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #interactive: boolean;
  readonly #startMs: number;
  #phase = "";
  #phaseStartMs = 0;
  #phaseStartBytes = 0;
  #shownMs = 0;
  #lineShown = false;

  constructor(
    deps: { readonly clock: Clock; readonly log: Logger; readonly interactive: boolean },
  ) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#interactive = deps.interactive;
    this.#startMs = deps.clock.monotonicMs();
  }

  readonly update = (update: ProgressUpdate): void => {
    const nowMs = this.#clock.monotonicMs();
    const newPhase = update.phase !== this.#phase;
    if (newPhase) {
      this.#phase = update.phase;
      this.#phaseStartMs = nowMs;
      this.#phaseStartBytes = update.doneBytes;
    }
    const intervalMs = this.#interactive ? DRAW_INTERVAL_MS : LOG_INTERVAL_MS;
    if (!newPhase && nowMs - this.#shownMs < intervalMs) return;
    this.#shownMs = nowMs;
    const elapsedMs = nowMs - this.#phaseStartMs;
    const bytes = update.doneBytes - this.#phaseStartBytes;
    if (this.#interactive) this.#draw(update, bytes, elapsedMs);
    else {
      this.#log.info("Progress", {
        phase: update.phase,
        done_bytes: update.doneBytes,
        total_bytes: update.totalBytes,
        done_files: update.doneFiles,
        elapsed_ms: Math.round(nowMs - this.#startMs),
      });
    }
  };

  #draw(update: ProgressUpdate, bytes: number, elapsedMs: number): void {
    const total = update.totalBytes;
    const parts = [update.phase.padEnd(22)];
    if (total !== undefined && total > 0) {
      const fraction = update.doneBytes / total;
      parts.push(
        bar(fraction, BAR_CELLS),
        `${Math.floor(Math.min(1, fraction) * 100)}%`.padStart(4),
      );
    }
    parts.push(
      formatBytes(update.doneBytes).padStart(9),
      formatRate(bytes, elapsedMs).padStart(12),
    );
    if (total !== undefined && bytes > 0 && total > update.doneBytes) {
      parts.push(`${formatDuration((elapsedMs * (total - update.doneBytes)) / bytes)} left`);
    }
    this.#lineShown = true;
    writeTerminal(`\r\x1b[2K${parts.join(" ")}`);
  }

  /** Ends the work; removes the bar. */
  done(): void {
    if (this.#lineShown) writeTerminal("\r\x1b[2K");
    this.#lineShown = false;
  }
}

function writeTerminal(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(text));
}
