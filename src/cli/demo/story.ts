/**
 * The demo's story, told with real processes: a Klio server, PostgreSQL under load, a streamer, a base backup while writing,
 * a dropped table and a restore to the moment before, then primary and streamer killed and a restore to the last
 * acknowledged commit. Everything lives in one temporary directory and ends with the story, however it ends.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { assert } from "../../base/assert.ts";
import type { Clock, Random } from "../../base/clock.ts";
import { formatBytes, formatCount, formatDuration } from "../../base/format.ts";
import { TaskGroup } from "../../base/task_group.ts";
import type { OwnCommand } from "../../adapters/process/self.ts";
import { LocalCluster } from "../../adapters/postgres/local_cluster.ts";
import type { PostgresBinaries } from "../../adapters/postgres/postgres_binaries.ts";
import type { SqlConnection } from "../../adapters/postgres/sql_connection.ts";
import { APPLICATION_NAME } from "../../domain/names.ts";
import { percentile, sampleFlushLag } from "./lag.ts";
import { writeClientConfig, writeServerConfig } from "./config_files.ts";
import { Role, runCommand } from "./role.ts";
import type { DemoEvent, DemoResult } from "./summary.ts";
import { type Checksum, checksum, createSchema, Workload } from "./workload.ts";

const CLUSTER = "demo";
const WRITERS = 8;
/** Commits to have before the backup starts, after it, and before the crash: enough to mean something, little to wait for. */
const COMMITS_BEFORE_BACKUP = 500;
const COMMITS_AFTER_BACKUP = 500;
const COMMITS_AFTER_DROP = 1000;
const POLL_MS = 20;
/** A restored server must neither wait for the streamer of the old one nor accept its writers. */
const RESTORED_SETTINGS = { synchronous_standby_names: "", max_connections: "100" };

/** What the story needs. */
export interface StoryDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly klio: OwnCommand;
  readonly binaries: PostgresBinaries;
  /** Exists, is empty, may be entered by the user that PostgreSQL runs as. */
  readonly directory: string;
  /** A step has begun, or ended with a few words on how. */
  readonly onStep: (step: { readonly title: string; readonly result?: string }) => void;
}

/** What `klio backup run` prints, as far as the story needs it. */
interface BackupOutput {
  readonly name: string;
  readonly stoppedAt: number;
  readonly statistics: {
    readonly bytes: number;
    readonly files: number;
    readonly newBytes: number;
    readonly deduplicatedBytes: number;
    readonly seconds: number;
  };
}

/** Tells the story. Throws when a step fails; differences of data are in the result. */
export async function tellStory(deps: StoryDeps, options: Waiting): Promise<DemoResult> {
  const { clock, directory, klio } = deps;
  const startMs = clock.monotonicMs();
  const events: DemoEvent[] = [];
  const mark = (label: string) => events.push({ atMs: clock.monotonicMs() - startMs, label });
  const step = async <T>(
    title: string,
    work: () => Promise<T>,
    result: (value: T) => string,
  ): Promise<T> => {
    deps.onStep({ title });
    const value = await work();
    deps.onStep({ title, result: result(value) });
    return value;
  };
  const config = `--config=${directory}/client.yaml`;

  await using resources = new AsyncDisposableStack();
  await using background = new TaskGroup(options.signal);
  await runCommand(
    klio,
    ["dev", "certs", "--dir", `${directory}/certs`, "--cluster", CLUSTER],
    options,
  );

  const server = await step("Klio server", async () => {
    await writeServerConfig(deps);
    const role = resources.use(
      new Role("server", klio, ["server", `--config=${directory}/server.yaml`]),
    );
    const ready = await role.waitFor((line) => line["msg"] === "Server is ready", options);
    return { role, base: String(ready["base_address"]), wal: String(ready["wal_address"]) };
  }, ({ base, wal }) => `base backups on ${base}, WAL on ${wal}, mutual TLS`);

  const primary = await step("PostgreSQL under continuous writes", async () => {
    const cluster = resources.use(
      await LocalCluster.create({
        ...deps,
        directory: `${directory}/primary`,
        settings: { max_wal_senders: "5" },
        ...options,
      }),
    );
    await cluster.start(options);
    return cluster;
  }, (cluster) => `${deps.binaries.version} on port ${cluster.port}, ${WRITERS} writers`);
  await writeClientConfig({ directory, cluster: CLUSTER, server, primary });
  const control = resources.use(await primary.connect(options));
  await createSchema(control, options);
  const startLsn = await currentLsn(control, options);

  const streamer = await step("WAL streaming", async () => {
    const role = resources.use(new Role("stream-wal", klio, ["stream-wal", config]));
    await role.waitFor((line) => line["msg"] === "Streaming WAL", options);
    await control.query(
      `ALTER SYSTEM SET synchronous_standby_names = '${APPLICATION_NAME}'`,
      options,
    );
    await control.query("SELECT pg_reload_conf()", options);
    await waitUntil(async () => {
      const rows = await control.query(
        "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'",
        options,
      );
      return rows.length > 0;
    });
    return role;
  }, () => "synchronous: a commit returns when klio has it on disk");
  mark("WAL streaming, commits wait for klio");

  const lagsMs: number[] = [];
  background.start((signal) => sampleFlushLag(primary, lagsMs, { signal, clock }));
  const workload = resources.use(new Workload(primary, { ...options, writers: WRITERS }));
  const commits = (count: number) => waitUntil(() => Promise.resolve(workload.commits >= count));
  await commits(COMMITS_BEFORE_BACKUP);

  mark("base backup starts");
  const backup = await step(
    "base backup while writing",
    async () => {
      const printed: BackupOutput = JSON.parse(
        await runCommand(klio, ["backup", "run", config], options),
      );
      return printed;
    },
    ({ statistics: s }) =>
      `${formatBytes(s.bytes)} in ${formatCount(s.files)} files, ${formatBytes(s.newBytes)} sent, ${
        formatDuration(s.seconds * 1000)
      }`,
  );
  mark("base backup ends");
  await commits(workload.commits + COMMITS_AFTER_BACKUP);
  await waitUntil(() => Promise.resolve(clock.nowMs() > backup.stoppedAt * 1000));

  const before = await step("note the time T and a checksum", async () => {
    await workload.pause();
    const sum = await checksum(control, options);
    const [row] = await control.query(
      `SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS time`,
      options,
    );
    return { ...sum, time: String(row?.["time"]) };
  }, ({ rows, time }) => `T = ${time}, ${formatCount(rows)} rows`);
  mark("T: the moment to come back to");

  await step("disaster: DROP TABLE ledger", async () => {
    workload.resume({ withLedger: false });
    await commits(workload.commits + WRITERS);
    await control.query("DROP TABLE ledger", options);
  }, () => "the application goes on without it");
  mark("DROP TABLE ledger");

  const pitr = await restore(
    "restore to T",
    "pitr",
    ["--target-time", before.time],
    (connection) => checksum(connection, options),
  );
  const equal = pitr.value.rows === before.rows && pitr.value.digest === before.digest;
  mark("restored to T in a second PostgreSQL");

  await commits(workload.commits + COMMITS_AFTER_DROP);
  const endLsn = await currentLsn(control, options);
  await step("SIGKILL for primary and streamer, in the middle of writes", async () => {
    workload.expectCrash();
    await Promise.all([streamer.kill(), primary.kill()]);
    await workload.end();
    await background.join();
  }, () => `${formatCount(workload.commits)} commits had been acknowledged`);
  mark("primary and streamer killed");

  const latest = await restore(
    "restore to the last commit",
    "latest",
    [],
    (connection) => workload.countLost(connection, options),
  );
  mark("restored to the last acknowledged commit");
  const serverExit = await server.role.stop(options);
  assert(serverExit === 0, "the server drains and exits with 0 on SIGTERM");

  return {
    ok: equal && latest.value === 0 && workload.commits > 0,
    pgVersion: deps.binaries.version,
    walBytes: Number(endLsn - startLsn),
    backup: backup.statistics,
    pitrSeconds: pitr.seconds,
    latestSeconds: latest.seconds,
    pitrRowsEqual: equal,
    pitrRows: before.rows,
    ackedCommits: workload.commits,
    lostAckedCommits: latest.value,
    flushLagMsP50: percentile(lagsMs, 50),
    flushLagMsP99: percentile(lagsMs, 99),
    flushLagSamples: lagsMs.length,
    totalSeconds: (clock.monotonicMs() - startMs) / 1000,
    events,
  };

  /** Restores with klio, recovers with PostgreSQL, asks, and ends that PostgreSQL. Seconds are until it accepted writes. */
  async function restore<T extends Checksum | number>(
    title: string,
    name: string,
    target: readonly string[],
    ask: (connection: SqlConnection) => Promise<T>,
  ): Promise<{ readonly value: T; readonly seconds: number }> {
    return await step(title, async () => {
      const beginMs = clock.monotonicMs();
      const home = `${directory}/${name}`;
      await Deno.mkdir(home);
      const { account } = primary;
      const owner = account === undefined ? [] : ["--owner", `${account.uid}:${account.gid}`];
      await runCommand(klio, ["restore", `${home}/data`, config, ...target, ...owner], options);
      await using cluster = await LocalCluster.adopt({
        ...deps,
        directory: home,
        settings: RESTORED_SETTINGS,
        ...options,
      });
      await cluster.start({ ...options, until: "primary" });
      const seconds = (clock.monotonicMs() - beginMs) / 1000;
      await using connection = await cluster.connect(options);
      const value = await ask(connection);
      await cluster.stop(options);
      return { value, seconds };
    }, ({ seconds, value }) =>
      `${formatDuration(seconds * 1000)} until it accepts writes, ` +
      (typeof value === "number"
        ? `${formatCount(value)} acknowledged commits lost`
        : `${formatCount(value.rows)} rows`));
  }

  async function waitUntil(condition: () => Promise<boolean>): Promise<void> {
    while (!await condition()) {
      options.signal.throwIfAborted();
      background.signal.throwIfAborted();
      await clock.sleep(POLL_MS, options);
    }
  }
}

async function currentLsn(connection: SqlConnection, options: Waiting): Promise<bigint> {
  const [row] = await connection.query(
    "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::text AS position",
    options,
  );
  return BigInt(String(row?.["position"]));
}
