/**
 * The PostgreSQL of the benchmark and the WAL in it: an application's inserts and updates of rows with text and three
 * indexes, in small transactions, full page images included, written once before anything is measured. A slot keeps all
 * of it; every run gets a copy of that slot, so that all of them stream exactly the same bytes.
 *
 * @module
 */

import { deadline, type Waiting } from "../../../src/base/abort.ts";
import { LocalCluster } from "../../../src/adapters/postgres/local_cluster.ts";
import type { PostgresBinaries } from "../../../src/adapters/postgres/postgres_binaries.ts";
import type { SqlConnection } from "../../../src/adapters/postgres/sql_connection.ts";
import { SYSTEM_CLOCK, SYSTEM_RANDOM } from "../../../src/adapters/process/clock.ts";

const KEEPER_SLOT = "bench_keeper";
const SEGMENT_BYTES = 16n << 20n;
const CONNECT_TIMEOUT_MS = 60_000;
const CONNECT_POLL_MS = 2;

const SCHEMA = `
  CREATE TABLE orders (
    id bigserial PRIMARY KEY, customer int NOT NULL, status text NOT NULL,
    note text NOT NULL, amount numeric(12, 2) NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
  CREATE INDEX ON orders (customer);
  CREATE INDEX ON orders (at);`;

/** 200 transactions: forty orders are placed in each, forty older ones change. */
const BATCH = `DO $batch$
  DECLARE newest bigint;
  BEGIN
    FOR i IN 1..200 LOOP
      INSERT INTO orders (customer, status, note, amount)
        SELECT (random() * 200000)::int, 'pending',
          'deliver to ' || md5(random()::text) || ' street ' || (random() * 900)::int ||
          ', please ring twice and leave the parcel with the neighbour; reference ' || n,
          (random() * 10000)::numeric(12, 2)
        FROM generate_series(1, 40) n;
      SELECT last_value INTO newest FROM orders_id_seq;
      UPDATE orders SET status = 'shipped on ' || clock_timestamp()::date, amount = amount * 1.19
        WHERE id = ANY (ARRAY(SELECT (random() * newest)::bigint FROM generate_series(1, 40)));
      COMMIT;
    END LOOP;
  END $batch$`;

/** A stopped-writing primary with WAL to catch up. */
export interface BenchPrimary {
  readonly cluster: LocalCluster;
  readonly sql: SqlConnection;
  /** Bytes from the keeper slot's position to `end`. */
  readonly walBytes: number;
  /** A segment's end: everything before is there and complete. */
  readonly end: bigint;
}

/** A row of pg_stat_replication. */
export interface Standby {
  readonly pid: number;
  /** When its connection began, milliseconds since the epoch. */
  readonly startMs: number;
  readonly flush: bigint;
}

/** Starts PostgreSQL and writes at least `walBytesMin` of WAL. */
export async function startPrimary(
  request: {
    readonly binaries: PostgresBinaries;
    readonly directory: string;
    readonly walBytesMin: number;
  },
  stack: AsyncDisposableStack,
  options: Waiting,
): Promise<BenchPrimary> {
  const cluster = stack.use(
    await LocalCluster.create({
      ...options,
      clock: SYSTEM_CLOCK,
      random: SYSTEM_RANDOM,
      binaries: request.binaries,
      directory: request.directory,
      settings: {
        autovacuum: "off", // nothing but the benchmark writes
        checkpoint_timeout: "1h",
        max_wal_size: "4GB",
        shared_buffers: "512MB",
        wal_buffers: "16MB",
      },
    }),
  );
  await cluster.start(options);
  const sql = stack.use(await cluster.connect(options));
  await sql.query(SCHEMA, options);
  await sql.query(`SELECT pg_create_physical_replication_slot('${KEEPER_SLOT}', true)`, options);
  await sql.query("SET synchronous_commit = off", options);
  const begin = await restartPosition(sql, options);
  let checkpointed = false;
  for (let written = 0n; written < BigInt(request.walBytesMin);) {
    await sql.query(BATCH, options);
    written = await position(sql, "pg_current_wal_insert_lsn()", options) - begin;
    if (checkpointed || written < BigInt(request.walBytesMin) / 2n) continue;
    await sql.query("CHECKPOINT", options); // from here on every page comes whole once more
    checkpointed = true;
  }
  await sql.query("CHECKPOINT", options); // else it would write while something is measured
  const last = await position(sql, "pg_switch_wal()", options);
  const end = (last + SEGMENT_BYTES - 1n) / SEGMENT_BYTES * SEGMENT_BYTES;
  return { cluster, sql, end, walBytes: Number(end - begin) };
}

/** A slot at the beginning of the WAL to catch up. */
export async function copySlot(sql: SqlConnection, name: string, options: Waiting): Promise<void> {
  await sql.query(
    `SELECT pg_copy_physical_replication_slot('${KEEPER_SLOT}', '${name}')`,
    options,
  );
}

/** Drops a slot as soon as nobody uses it any more. */
export async function dropSlot(sql: SqlConnection, name: string, options: Waiting): Promise<void> {
  for (;;) {
    const [row] = await sql.query(
      "SELECT active FROM pg_replication_slots WHERE slot_name = $1",
      { ...options, values: [name] },
    );
    if (row?.["active"] === false) break;
    await SYSTEM_CLOCK.sleep(10, options);
  }
  await sql.query(`SELECT pg_drop_replication_slot('${name}')`, options);
}

/** Gives up the WAL that was kept for catching up. */
export async function releaseWal(sql: SqlConnection, options: Waiting): Promise<void> {
  await dropSlot(sql, KEEPER_SLOT, options);
  await sql.query("DROP TABLE orders", options);
  await sql.query("CHECKPOINT", options);
}

/** The standby with this application name; undefined while it is not connected. */
export async function findStandby(
  sql: SqlConnection,
  application: string,
  options: Waiting,
): Promise<Standby | undefined> {
  const [row] = await sql.query(
    `SELECT pid, extract(epoch FROM backend_start) * 1000 AS start_ms,
       coalesce(flush_lsn - '0/0', 0)::text AS flush
     FROM pg_stat_replication WHERE application_name = $1`,
    { ...options, values: [application] },
  );
  if (row === undefined) return undefined;
  return {
    pid: Number(row["pid"]),
    startMs: Number(row["start_ms"]),
    flush: BigInt(String(row["flush"])),
  };
}

/** Waits for that standby. Throws `timeout` when it does not come. */
export async function standbyAt(
  sql: SqlConnection,
  application: string,
  options: Waiting,
): Promise<Standby> {
  const { signal } = options;
  using limit = deadline({
    signal,
    timeoutMs: CONNECT_TIMEOUT_MS,
    what: `Wait for ${application}`,
  });
  for (;;) {
    const standby = await findStandby(sql, application, limit);
    if (standby !== undefined) return standby;
    await SYSTEM_CLOCK.sleep(CONNECT_POLL_MS, limit);
  }
}

async function restartPosition(sql: SqlConnection, options: Waiting): Promise<bigint> {
  const [row] = await sql.query(
    `SELECT (restart_lsn - '0/0')::text AS position FROM pg_replication_slots
     WHERE slot_name = '${KEEPER_SLOT}'`,
    options,
  );
  return BigInt(String(row?.["position"])) / SEGMENT_BYTES * SEGMENT_BYTES;
}

async function position(
  sql: SqlConnection,
  expression: string,
  options: Waiting,
): Promise<bigint> {
  const [row] = await sql.query(`SELECT (${expression} - '0/0')::text AS position`, options);
  return BigInt(String(row?.["position"]));
}
