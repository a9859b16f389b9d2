/**
 * Waits until the archive holds every WAL file of a backup. Outages of the archive are waited out as well: the backup is
 * stored, only the proof is missing. WAL that is lost is not waited for.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/failure.ts";
import type { Logger } from "../../base/log.ts";
import { isRetryable } from "../../base/retry.ts";
import { gapOver } from "../../domain/wal_gap.ts";
import type { BackupWalRange, WalGap, WalServer } from "../../ports/wal_server.ts";

/** Between two questions: a segment takes longer than this to fill and ship only on a busy system. */
const POLL_MS = 500;
/** How many missing files an error names. */
const NAMED_MAX = 5;

/** What {@link waitForWal} needs. */
export interface WalWait {
  readonly wal: Pick<WalServer, "closeBackup" | "metadata">;
  readonly clock: Clock;
  readonly log: Logger;
  readonly timeoutMs: number;
}

/**
 * Resolves when the range is complete. Throws `timeout`, naming what is missing, `source` when some of it is lost, or the
 * archive's final refusal.
 */
export async function waitForWal(
  wait: WalWait,
  range: BackupWalRange,
  options: Waiting,
): Promise<void> {
  const { clock, log, timeoutMs } = wait;
  const startMs = clock.monotonicMs();
  let missing: readonly string[] = [range.startWal, range.endWal];
  let lost: string | undefined;
  let failure: unknown;
  for (;;) {
    try {
      missing = await wait.wal.closeBackup(range, options);
      failure = undefined;
      if (missing.length === 0) return;
      lost = lostOf(missing, (await wait.wal.metadata(range.cluster, options)).gaps);
    } catch (error) {
      options.signal.throwIfAborted();
      if (!isRetryable(error)) throw error;
      if (failure === undefined) log.warn("Cannot ask the WAL archive, trying again", {}, error);
      failure = error;
    }
    if (lost !== undefined) throw walLost(range, lost);
    const leftMs = timeoutMs - (clock.monotonicMs() - startMs);
    if (leftMs <= 0) throw late(range, { missing, failure, timeoutMs });
    await clock.sleep(Math.min(POLL_MS, leftMs), options);
  }
}

function lostOf(missing: readonly string[], gaps: readonly WalGap[]): string | undefined {
  return missing.find((name) => gapOver(gaps, name) !== undefined);
}

function walLost(range: BackupWalRange, name: string): AppError {
  return new AppError(
    "source",
    `Wait for the WAL of backup "${range.backupName}" (${range.startWal} to ${range.endWal}): ${name} is lost, PostgreSQL removed it before it was archived`,
    { hint: "this backup cannot be restored: take a new one" },
  );
}

function late(
  range: BackupWalRange,
  state: {
    readonly missing: readonly string[];
    readonly failure: unknown;
    readonly timeoutMs: number;
  },
): AppError {
  const { missing, failure, timeoutMs } = state;
  const more = missing.length > NAMED_MAX ? ` and ${missing.length - NAMED_MAX} more` : "";
  const seen = failure === undefined
    ? `missing ${missing.slice(0, NAMED_MAX).join(", ")}${more}`
    : "the archive does not answer";
  return new AppError(
    "timeout",
    `Wait for the WAL of backup "${range.backupName}" (${range.startWal} to ${range.endWal}): ${seen} after ${timeoutMs} ms`,
    {
      cause: failure,
      hint:
        "the backup is stored and becomes restorable when these files arrive: check that `klio stream-wal` runs; on a standby the primary must switch its WAL segment",
    },
  );
}
