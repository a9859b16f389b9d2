/**
 * Samples how long WAL takes from PostgreSQL's own flush until klio has confirmed it as durable, as PostgreSQL itself
 * measures it (`pg_stat_replication.flush_lag`), so that the demo does not take klio's word for it.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { failureKind } from "../../base/failure.ts";
import type { LocalCluster } from "../../adapters/postgres/local_cluster.ts";
import { APPLICATION_NAME } from "../../domain/names.ts";

const SAMPLE_INTERVAL_MS = 50;
const SAMPLES_MAX = 10_000;

/** The value below which `percent` of the samples lie; 0 without samples. */
export function percentile(samples: readonly number[], percent: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil((sorted.length * percent) / 100) - 1)] ?? 0;
}

/** Samples until aborted or until PostgreSQL is gone; appends to `samplesMs`. */
export async function sampleFlushLag(
  cluster: LocalCluster,
  samplesMs: number[],
  options: Waiting & { readonly clock: Clock },
): Promise<void> {
  try {
    await using connection = await cluster.connect(options);
    while (samplesMs.length < SAMPLES_MAX) {
      const rows = await connection.query(
        "SELECT extract(epoch FROM flush_lag) * 1000 AS ms FROM pg_stat_replication WHERE application_name = $1 AND flush_lag IS NOT NULL",
        { ...options, values: [APPLICATION_NAME] },
      );
      for (const row of rows) samplesMs.push(Number(row["ms"]));
      await options.clock.sleep(SAMPLE_INTERVAL_MS, options);
    }
  } catch (error) {
    if (!options.signal.aborted && failureKind(error) !== "source") throw error;
  }
}
