/**
 * How long a commit takes to be durable at klio while WAL flows at a given rate. One connection writes WAL at that rate
 * (payload half text, half noise) and never waits for klio. Another commits something tiny on a fixed schedule with
 * klio as its synchronous standby: its latency, counted from the moment the commit was due, is what an application
 * feels, PostgreSQL's own flush included. A third does the same without waiting for klio: that share is PostgreSQL's.
 * Counting from the due time leaves no stall out: those who had to wait behind it are counted as late, too.
 *
 * @module
 */

import type { Waiting } from "../../../src/base/abort.ts";
import { TaskGroup } from "../../../src/base/task_group.ts";
import type { LocalCluster } from "../../../src/adapters/postgres/local_cluster.ts";
import type { OwnCommand } from "../../../src/adapters/process/self.ts";
import type { SqlConnection } from "../../../src/adapters/postgres/sql_connection.ts";
import { SYSTEM_CLOCK } from "../../../src/adapters/process/clock.ts";
import { percentile } from "../../../src/cli/demo/lag.ts";
import { APPLICATION_NAME } from "../../../src/domain/names.ts";
import { dropSlot, standbyAt } from "./primary.ts";
import { processUsage } from "./process_usage.ts";
import { type Klio, startKlio } from "./receivers.ts";

const SLOT = "bench_steady";
const PAYLOAD_BYTES = 32 << 10;
/** Rows of payload: one statement writes so many at most. */
const PAYLOADS = 128;
const WRITE_INTERVAL_MS = 10;
const PROBE_INTERVAL_MS = 10;
const WARM_UP_MS = 2000;
const GIB = 2 ** 30;

const PAYLOAD = `
  CREATE UNLOGGED TABLE payload (id int PRIMARY KEY, bytes bytea);
  ALTER TABLE payload ALTER bytes SET STORAGE EXTERNAL;
  INSERT INTO payload SELECT i, convert_to(rpad('', ${
  PAYLOAD_BYTES / 2
}, 'order ' || i || ' is on its way; '), 'UTF8')
      || (SELECT string_agg(uuid_send(gen_random_uuid()), '') FROM generate_series(1, ${
  PAYLOAD_BYTES / 32
}) n WHERE i > 0)
    FROM generate_series(1, ${PAYLOADS}) i;`;
const WRITE =
  "SELECT count(pg_logical_emit_message(true, 'bench', bytes)) FROM payload WHERE id <= $1::int";
const PROBE = "SELECT pg_logical_emit_message(true, 'probe', 'x')";

/** What was measured at one rate. */
export interface Steady {
  /** Asked for, in 10^6 bytes per second. */
  readonly rateMb: number;
  /** WAL that PostgreSQL wrote meanwhile. */
  readonly achievedMb: number;
  readonly durableMsP50: number;
  readonly durableMsP99: number;
  readonly localMsP99: number;
  readonly samples: number;
  readonly cpuSecondsPerGib: Readonly<Record<string, number>>;
}

/** All rates one after the other, with the same klio. */
export async function steadyFlow(
  request: {
    readonly klio: OwnCommand;
    readonly directory: string;
    readonly ratesMb: readonly number[];
    readonly secondsPerRate: number;
    readonly onRate: (result: Steady) => void;
  },
  cluster: LocalCluster,
  options: Waiting,
): Promise<{ readonly rates: readonly Steady[]; readonly rssPeakMib: Record<string, number> }> {
  await using sql = await cluster.connect(options);
  await sql.query(PAYLOAD, options);
  const rates: Steady[] = [];
  let rssPeakMib: Record<string, number>;
  {
    await using klio = await startKlio({ ...request, slot: SLOT }, cluster, options);
    await standbyAt(sql, APPLICATION_NAME, options);
    await setSynchronous(sql, APPLICATION_NAME, options);
    for (const rateMb of request.ratesMb) {
      const result = await measureRate(
        { rateMb, seconds: request.secondsPerRate, klio },
        cluster,
        options,
      );
      request.onRate(result);
      rates.push(result);
    }
    const [server, streamer] = await usage(klio);
    rssPeakMib = { server: server.rssPeakMib, streamer: streamer.rssPeakMib };
    await setSynchronous(sql, "", options);
    await klio.stop(options);
  }
  await dropSlot(sql, SLOT, options);
  return { rates, rssPeakMib };
}

async function setSynchronous(
  sql: SqlConnection,
  standbys: string,
  options: Waiting,
): Promise<void> {
  await sql.query("SET synchronous_commit = local", options);
  await sql.query(`ALTER SYSTEM SET synchronous_standby_names = '${standbys}'`, options);
  await sql.query("SELECT pg_reload_conf()", options);
  while (standbys !== "") {
    const rows = await sql.query(
      "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'",
      options,
    );
    if (rows.length > 0) return;
    await SYSTEM_CLOCK.sleep(20, options);
  }
}

async function usage(klio: Klio) {
  return await Promise.all([processUsage(klio.serverPid), processUsage(klio.streamerPid)]);
}

async function measureRate(
  request: { readonly rateMb: number; readonly seconds: number; readonly klio: Klio },
  cluster: LocalCluster,
  options: Waiting,
): Promise<Steady> {
  const { klio, rateMb, seconds } = request;
  const durableMs: number[] = [];
  const localMs: number[] = [];
  await using sql = await cluster.connect(options);
  await using tasks = new TaskGroup(options.signal);
  const running = { measured: false, over: false };
  tasks.start((signal) => write(cluster, rateMb, running, { signal }));
  tasks.start((signal) => probe(cluster, "on", durableMs, running, { signal }));
  tasks.start((signal) => probe(cluster, "local", localMs, running, { signal }));
  await SYSTEM_CLOCK.sleep(WARM_UP_MS, options);
  const before = await usage(klio);
  const from = await walPosition(sql, options);
  const beginMs = SYSTEM_CLOCK.monotonicMs();
  running.measured = true;
  await SYSTEM_CLOCK.sleep(seconds * 1000, options);
  running.measured = false;
  const writtenBytes = await walPosition(sql, options) - from;
  const tookMs = SYSTEM_CLOCK.monotonicMs() - beginMs;
  const after = await usage(klio);
  running.over = true;
  await tasks.join();
  const cpu = (index: 0 | 1) =>
    (after[index].cpuSeconds - before[index].cpuSeconds) / (writtenBytes / GIB);
  return {
    rateMb,
    achievedMb: writtenBytes / 1000 / tookMs,
    durableMsP50: percentile(durableMs, 50),
    durableMsP99: percentile(durableMs, 99),
    localMsP99: percentile(localMs, 99),
    samples: durableMs.length,
    cpuSecondsPerGib: { server: cpu(0), streamer: cpu(1) },
  };
}

interface Running {
  readonly measured: boolean;
  readonly over: boolean;
}

async function write(
  cluster: LocalCluster,
  rateMb: number,
  running: Running,
  options: Waiting,
): Promise<void> {
  await using sql = await cluster.connect(options);
  await sql.query("SET synchronous_commit = local", options);
  const beginMs = SYSTEM_CLOCK.monotonicMs();
  for (let writtenBytes = 0; !running.over;) {
    const dueBytes = (SYSTEM_CLOCK.monotonicMs() - beginMs) * rateMb * 1000;
    const rows = Math.min(PAYLOADS, Math.floor((dueBytes - writtenBytes) / PAYLOAD_BYTES));
    if (rows > 0) await sql.query(WRITE, { ...options, values: [rows] });
    writtenBytes += rows * PAYLOAD_BYTES;
    if (rows < PAYLOADS) await SYSTEM_CLOCK.sleep(WRITE_INTERVAL_MS, options);
  }
}

async function probe(
  cluster: LocalCluster,
  synchronousCommit: "on" | "local",
  samplesMs: number[],
  running: Running,
  options: Waiting,
): Promise<void> {
  await using sql = await cluster.connect(options);
  await sql.query(`SET synchronous_commit = ${synchronousCommit}`, options);
  for (let dueMs = SYSTEM_CLOCK.monotonicMs(); !running.over; dueMs += PROBE_INTERVAL_MS) {
    const waitMs = dueMs - SYSTEM_CLOCK.monotonicMs();
    if (waitMs > 0) await SYSTEM_CLOCK.sleep(waitMs, options);
    await sql.query(PROBE, options);
    if (running.measured) samplesMs.push(SYSTEM_CLOCK.monotonicMs() - dueMs);
  }
}

async function walPosition(sql: SqlConnection, options: Waiting): Promise<number> {
  const [row] = await sql.query(
    "SELECT (pg_current_wal_insert_lsn() - '0/0')::text AS position",
    options,
  );
  return Number(row?.["position"]);
}
