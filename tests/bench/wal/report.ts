/**
 * What the WAL benchmark prints: a table for people, one JSON object for machines.
 *
 * @module
 */

import { percentile } from "../../../src/cli/demo/lag.ts";
import type { CatchUp } from "./catch_up.ts";
import type { Steady } from "./steady.ts";

/** Everything that was measured. */
export interface WalBenchResult {
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly os: string;
    readonly loadBefore: number;
  };
  readonly versions: {
    readonly klio: string;
    readonly postgresql: string;
    readonly pg_receivewal: string;
  };
  readonly walBytes: number;
  readonly klio: readonly CatchUp[];
  readonly pgReceivewal: readonly CatchUp[];
  readonly steady: readonly Steady[];
  readonly steadyRssPeakMib: Readonly<Record<string, number>>;
}

const WARM =
  "WAL is read from the operating system's cache, as it has just been written; every run writes to a new, empty directory.";

function round(value: number, digits = 1): number {
  return Number(value.toFixed(digits));
}

function median(values: readonly number[]): number {
  return percentile(values, 50);
}

function spread(runs: readonly CatchUp[]): readonly [number, number, number] {
  const rates = runs.map((run) => run.megabytesPerSecond);
  return [round(Math.min(...rates)), round(median(rates)), round(Math.max(...rates))];
}

/** Medians per process over the runs. */
function cpuOf(runs: readonly CatchUp[]): Record<string, number> {
  const names = Object.keys(runs[0]?.cpuSecondsPerGib ?? {});
  return Object.fromEntries(
    names.map((name) => [
      name,
      round(median(runs.map((run) => run.cpuSecondsPerGib[name] ?? 0)), 2),
    ]),
  );
}

/** Median over the runs of the largest share of the time that one of the processes waited for a processor. */
function waitShare(runs: readonly CatchUp[]): number {
  return median(
    runs.map((run) => Math.max(...Object.values(run.cpuWaitSeconds)) / run.seconds),
  );
}

function rssPeak(result: WalBenchResult, process: "server" | "streamer"): number {
  const all = [...result.klio.map((run) => run.rssPeakMib), result.steadyRssPeakMib];
  return round(Math.max(...all.map((rss) => rss[process] ?? 0)));
}

/** One object; medians where several runs were made. */
export function walBenchJson(result: WalBenchResult): Record<string, unknown> {
  const klio = spread(result.klio);
  const peer = spread(result.pgReceivewal);
  const cpu = cpuOf(result.klio);
  const perRate = (value: (steady: Steady) => unknown) =>
    Object.fromEntries(result.steady.map((steady) => [String(steady.rateMb), value(steady)]));
  return {
    catchup_ratio_vs_pg_receivewal: round(klio[1] / peer[1], 2),
    catchup_mb_per_s: klio[1],
    pg_receivewal_mb_per_s: peer[1],
    catchup_mb_per_s_min_median_max: klio,
    pg_receivewal_mb_per_s_min_median_max: peer,
    catchup_runs: {
      klio: result.klio.map((run) => round(run.megabytesPerSecond)),
      pg_receivewal: result.pgReceivewal.map((run) => round(run.megabytesPerSecond)),
    },
    // Large shares of the time mean that the machine was busy with something else: measure again.
    catchup_cpu_wait_share: {
      klio: round(waitShare(result.klio), 2),
      pg_receivewal: round(waitShare(result.pgReceivewal), 2),
    },
    durable_latency_ms_p50: perRate((steady) => round(steady.durableMsP50, 2)),
    durable_latency_ms_p99: perRate((steady) => round(steady.durableMsP99, 2)),
    local_commit_ms_p99: perRate((steady) => round(steady.localMsP99, 2)),
    latency_samples: perRate((steady) => steady.samples),
    achieved_mb_per_s: perRate((steady) => round(steady.achievedMb)),
    rss_mib_peak: { server: rssPeak(result, "server"), streamer: rssPeak(result, "streamer") },
    cpu_seconds_per_gib: round((cpu["server"] ?? 0) + (cpu["streamer"] ?? 0), 2),
    cpu_seconds_per_gib_by_process: cpu,
    pg_receivewal_cpu_seconds_per_gib_by_process: cpuOf(result.pgReceivewal),
    steady_cpu_seconds_per_gib: perRate((steady) => ({
      server: round(steady.cpuSecondsPerGib["server"] ?? 0, 2),
      streamer: round(steady.cpuSecondsPerGib["streamer"] ?? 0, 2),
    })),
    catchup_wal_bytes: result.walBytes,
    machine: result.machine,
    versions: result.versions,
    warm: WARM,
  };
}

/** The table. */
export function walBenchText(result: WalBenchResult): string {
  const { machine, versions } = result;
  const klio = spread(result.klio);
  const peer = spread(result.pgReceivewal);
  const cpu = cpuOf(result.klio);
  const peerCpu = cpuOf(result.pgReceivewal);
  const cells = (...values: ReadonlyArray<string | number>) =>
    values.map((value, index) =>
      index === 0 ? String(value).padEnd(24) : String(value).padStart(12)
    ).join("");
  const lines = [
    `${versions.klio}, PostgreSQL ${versions.postgresql}, pg_receivewal ${versions.pg_receivewal}`,
    `${machine.cpu}, ${machine.cores} cores, ${machine.os}, load before ${machine.loadBefore}`,
    "",
    `Catching up ${round(result.walBytes / 2 ** 20)} MiB of WAL (MB/s; CPU seconds per GiB)`,
    cells("", "median", "min", "max", "CPU", "walsender"),
    cells(
      "klio",
      klio[1],
      klio[0],
      klio[2],
      `${cpu["streamer"]}+${cpu["server"]}`,
      cpu["walsender"] ?? 0,
    ),
    cells(
      "pg_receivewal",
      peer[1],
      peer[0],
      peer[2],
      peerCpu["pg_receivewal"] ?? 0,
      peerCpu["walsender"] ?? 0,
    ),
    cells("ratio", round(klio[1] / peer[1], 2)),
    `Waiting for a processor that others had: klio ${round(100 * waitShare(result.klio), 0)} %, ` +
    `pg_receivewal ${round(100 * waitShare(result.pgReceivewal), 0)} % of the time`,
    WARM,
    "",
    "Steady flow (commit to durable at klio, ms; CPU seconds per GiB, streamer + server)",
    cells("MB/s", "achieved", "p50", "p99", "local p99", "samples", "CPU"),
    ...result.steady.map((steady) =>
      cells(
        steady.rateMb,
        round(steady.achievedMb),
        round(steady.durableMsP50, 2),
        round(steady.durableMsP99, 2),
        round(steady.localMsP99, 2),
        steady.samples,
        `${round(steady.cpuSecondsPerGib["streamer"] ?? 0)}+${
          round(steady.cpuSecondsPerGib["server"] ?? 0)
        }`,
      )
    ),
    "",
    `Peak memory: server ${rssPeak(result, "server")} MiB, streamer ${
      rssPeak(result, "streamer")
    } MiB`,
  ];
  return lines.join("\n");
}
