/**
 * `deno task bench wal`: the WAL path of real processes (PostgreSQL, `klio stream-wal`, `klio server` with mutual TLS,
 * compression, encryption and fsync) against `pg_receivewal`, in one run on one machine. Everything lives in a temporary
 * directory and on loopback, and is gone at the end. Needs an installed PostgreSQL and about 6 GiB of disk.
 *
 * @module
 */

import { parseArgs } from "node:util";

import { findPostgres } from "../../../src/adapters/postgres/postgres_binaries.ts";
import type { OwnCommand } from "../../../src/adapters/process/self.ts";
import { SYSTEM_RANDOM } from "../../../src/adapters/process/clock.ts";
import { isKind } from "../../../src/base/failure.ts";
import { parseCount } from "../../../src/cli/arguments.ts";
import { versionText } from "../../../src/cli/version.ts";
import { klioCommand } from "../../e2e/klio_process.ts";
import { temporaryDirectory } from "../../support/postgres.ts";
import { type CatchUp, catchUpKlio, catchUpPgReceivewal } from "./catch_up.ts";
import { releaseWal, startPrimary } from "./primary.ts";
import { walBenchJson, type WalBenchResult, walBenchText } from "./report.ts";
import { type Steady, steadyFlow } from "./steady.ts";

const RATES_MB = [10, 50, 100] as const;
const TIMEOUT_MS = 30 * 60_000;

interface BenchOptions {
  readonly json: boolean;
  readonly gib: number;
  readonly repeats: number;
  readonly secondsPerRate: number;
  /** Where klio's processes leave a CPU profile each when they end; only when run from sources. */
  readonly profileDirectory: string | undefined;
}

/** Throws `usage`, or a TypeError for unknown options. */
function parseOptions(words: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: [...words],
    options: {
      json: { type: "boolean", default: false },
      gib: { type: "string", default: "1" },
      repeats: { type: "string", default: "3" },
      "seconds-per-rate": { type: "string", default: "10" },
      profile: { type: "string" },
    },
  });
  return {
    json: values.json,
    gib: parseCount("--gib", values.gib, { min: 1, max: 16 }),
    repeats: parseCount("--repeats", values.repeats, { min: 1, max: 20 }),
    // Zero leaves the steady flow out.
    secondsPerRate: parseCount("--seconds-per-rate", values["seconds-per-rate"], {
      min: 0,
      max: 600,
    }),
    profileDirectory: values.profile,
  };
}

/** Runs it; the exit code. Without an installed `pg_receivewal` it says "not run". */
export async function runWalBench(words: readonly string[]): Promise<number> {
  const bench = parseOptions(words);
  const stop = new AbortController();
  const onSignal = () => stop.abort(new Error("the benchmark was interrupted"));
  Deno.addSignalListener("SIGINT", onSignal);
  Deno.addSignalListener("SIGTERM", onSignal);
  try {
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(TIMEOUT_MS)]);
    const result = await measureAll(bench, signal);
    if (result === undefined) {
      console.log("not run: pg_receivewal of PostgreSQL 15 or newer is not installed");
      return 0;
    }
    console.log(walBenchText(result));
    if (bench.json) console.log(JSON.stringify(walBenchJson(result)));
    return 0;
  } finally {
    Deno.removeSignalListener("SIGINT", onSignal);
    Deno.removeSignalListener("SIGTERM", onSignal);
  }
}

async function measureAll(
  bench: BenchOptions,
  signal: AbortSignal,
): Promise<WalBenchResult | undefined> {
  const options = { signal };
  const binaries = await findPostgres({
    ...options,
    source: "installed",
    environment: (name) => Deno.env.get(name),
    random: SYSTEM_RANDOM,
  }).catch((error) => {
    if (isKind(error, "source")) return undefined;
    throw error;
  });
  if (binaries === undefined) return undefined;
  const program = `${binaries.directory}/pg_receivewal`;
  const programVersion = await versionOf(program);
  if (programVersion === undefined) return undefined;

  const klio = klioToMeasure(bench);
  const [loadBefore = 0] = Deno.loadavg();
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory()).path;
  say(`Writing ${bench.gib} GiB of WAL on PostgreSQL ${binaries.version}`);
  const primary = await startPrimary(
    { binaries, directory: `${directory}/pg`, walBytesMin: bench.gib * 2 ** 30 },
    stack,
    options,
  );
  const runs = { klio: [] as CatchUp[], pgReceivewal: [] as CatchUp[] };
  const measureKlio = async () => {
    const run = await catchUpKlio({ klio, directory: `${directory}/klio` }, primary, options);
    sayRun("klio", run);
    runs.klio.push(run);
  };
  const measurePeer = async () => {
    const run = await catchUpPgReceivewal(
      { program, directory: `${directory}/received` },
      primary,
      options,
    );
    sayRun("pg_receivewal", run);
    runs.pgReceivewal.push(run);
  };
  for (let round = 0; round < bench.repeats; round++) {
    // The order changes: what the disk still has to do after one of them must not always hit the same other.
    const order = round % 2 === 0 ? [measureKlio, measurePeer] : [measurePeer, measureKlio];
    for (const measure of order) await measure();
  }
  await releaseWal(primary.sql, options);
  const steady = bench.secondsPerRate === 0 ? undefined : await steadyFlow(
    {
      klio,
      directory: `${directory}/klio`,
      ratesMb: RATES_MB,
      secondsPerRate: bench.secondsPerRate,
      onRate: sayRate,
    },
    primary.cluster,
    options,
  );
  return {
    machine: {
      cpu: await processorName(),
      cores: navigator.hardwareConcurrency,
      os: `${Deno.build.os} ${Deno.osRelease()}`,
      loadBefore: Number(loadBefore.toFixed(2)),
    },
    versions: {
      klio: versionText(),
      postgresql: binaries.version,
      pg_receivewal: programVersion,
    },
    walBytes: primary.walBytes,
    ...runs,
    steady: steady?.rates ?? [],
    steadyRssPeakMib: steady?.rssPeakMib ?? {},
  };
}

function klioToMeasure(bench: BenchOptions): OwnCommand {
  const klio = klioCommand();
  const [run, ...rest] = klio.args;
  if (bench.profileDirectory === undefined || run === undefined) return klio;
  return {
    ...klio,
    args: [run, "--cpu-prof", `--cpu-prof-dir=${bench.profileDirectory}`, ...rest],
  };
}

function say(text: string): void {
  console.error(text);
}

function sayRun(name: string, run: CatchUp): void {
  const cpu = Object.entries(run.cpuSecondsPerGib).map(([who, s]) => `${who} ${s.toFixed(2)}`);
  const rss = Object.entries(run.rssPeakMib).map(([who, mib]) => `${who} ${mib.toFixed(0)}`);
  say(
    `${name}: ${run.megabytesPerSecond.toFixed(1)} MB/s; CPU s/GiB: ${cpu.join(", ")}; peak MiB: ${
      rss.join(", ")
    }`,
  );
}

function sayRate(steady: Steady): void {
  say(
    `${steady.rateMb} MB/s: got ${steady.achievedMb.toFixed(1)}, p50 ${
      steady.durableMsP50.toFixed(2)
    } ms, p99 ${steady.durableMsP99.toFixed(2)} ms`,
  );
}

async function versionOf(program: string): Promise<string | undefined> {
  try {
    const { stdout } = await new Deno.Command(program, { args: ["--version"] }).output();
    return /\d+(?:\.\d+)?/.exec(new TextDecoder().decode(stdout))?.[0];
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function processorName(): Promise<string> {
  try {
    const text = await Deno.readTextFile("/proc/cpuinfo");
    return /^model name\s*:\s*(.+)$/m.exec(text)?.[1] ?? Deno.build.arch;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return Deno.build.arch;
    throw error;
  }
}
