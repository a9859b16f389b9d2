/**
 * Real WAL from a real PostgreSQL: small and large commits, full page images, index builds, prepared transactions, switches,
 * a record larger than two segments, a record torn by a crash and overwritten, and a second timeline.
 *
 * @module
 */

import type { SqlConnection } from "../../src/adapters/postgres/sql_connection.ts";
import type { Waiting } from "../../src/base/abort.ts";
import { concat } from "../../src/base/bytes.ts";
import {
  type Lsn,
  lsn,
  lsnDistance,
  parseLsn,
  segmentName,
  segmentNameStart,
  type TimelineId,
  timelineId,
} from "../../src/domain/lsn.ts";
import { parseTimelineHistory, type TimelineSwitch } from "../../src/domain/timeline_history.ts";
import { type PostgresMajor, startTestCluster, testPostgres } from "./postgres.ts";

/** Small segments, so that large records span several. */
export const REAL_WAL_SEGMENT_BYTES = 1 << 20;

/** What a walsender would send of one timeline. */
export interface RealTimeline {
  readonly timeline: TimelineId;
  readonly history: readonly TimelineSwitch[];
  /** Start of the segment in which the bytes begin. */
  readonly start: Lsn;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** See the module comment. */
export interface RealWal extends AsyncDisposable {
  readonly major: PostgresMajor;
  readonly systemId: string;
  /** Holds the segments as files, for `pg_waldump`. */
  readonly directory: string;
  /** Directory of PostgreSQL's programs. */
  readonly programs: string;
  readonly timelines: readonly RealTimeline[];
  /** Start of the record that was torn. */
  readonly torn: Lsn;
}

const WORKLOAD = [
  "create table accounts (id int primary key, branch int, balance int, filler text)",
  "insert into accounts select i, i % 7, 0, repeat('x', i % 90) from generate_series(1, 8000) i",
  "create index on accounts (branch, id)",
  "create index on accounts using hash (id)",
  "create table words (list int[])",
  "create index on words using gin (list)",
  "insert into words select array[i, i % 9, i % 100] from generate_series(1, 2000) i",
  "checkpoint",
  "update accounts set balance = balance + 1 where id % 3 = 0", // full page images
  `do $$ begin for i in 1..400 loop
     update accounts set balance = balance + i where id = 1 + i * 17 % 8000; commit;
   end loop; end $$`,
  "select pg_switch_wal()",
  "begin; insert into accounts values (9001, 1, 1, ''); savepoint a; delete from accounts where id = 5; prepare transaction 'p'",
  "commit prepared 'p'",
  "begin; insert into accounts values (9002, 1, 1, ''); prepare transaction 'q'; rollback prepared 'q'",
  "set wal_compression = on",
  "checkpoint",
  "update accounts set filler = filler || 'y' where id % 5 = 0",
  "vacuum accounts",
  "select pg_logical_emit_message(true, 'large', string_agg(md5(i::text), '')) from generate_series(1, 80000) i",
  "select pg_switch_wal()",
  "truncate words",
  "drop table words",
] as const;

/** Makes it; takes a few seconds. */
export async function makeRealWal(
  options: Waiting & { readonly major: PostgresMajor },
): Promise<RealWal> {
  const { signal } = options;
  await using stack = new AsyncDisposableStack();
  const test = stack.use(
    await startTestCluster({
      signal,
      major: options.major,
      segmentSizeBytes: REAL_WAL_SEGMENT_BYTES,
      settings: {
        wal_level: "logical",
        wal_keep_size: "1GB",
        max_wal_size: "1GB",
        max_prepared_transactions: "5",
        autovacuum: "off",
        restore_command: "false",
        fsync: "off", // its processes die here, never the machine
      },
    }),
  );
  const { cluster } = test;
  const directory = `${cluster.dataDirectory}/pg_wal`;
  let systemId = "";
  let torn: Lsn;
  {
    await using sql = await cluster.connect({ signal });
    for (const statement of WORKLOAD) {
      for (const part of statement.startsWith("do") ? [statement] : statement.split("; ")) {
        await sql.query(part, { signal });
      }
    }
    systemId = await ask(sql, "select system_identifier::text as value from pg_control_system()", {
      signal,
    });
    await sql.query("checkpoint", { signal });
    torn = parseLsn(
      await ask(sql, "select pg_current_wal_insert_lsn()::text as value", { signal }),
    );
    await sql.query("select pg_logical_emit_message(false, 'torn', repeat('z', 3000000))", {
      signal,
    });
  }
  // As a crash that lost the segments behind: recovery finds the record unfinished and overwrites its continuation.
  await cluster.kill();
  const lost = segmentName(timelineId(1), torn, REAL_WAL_SEGMENT_BYTES);
  for (const name of await segmentNames(directory)) {
    if (name > lost) await Deno.remove(`${directory}/${name}`);
  }
  await cluster.start({ signal, until: "primary" });
  {
    await using sql = await cluster.connect({ signal });
    await sql.query(
      "insert into accounts select i, 1, 1, '' from generate_series(10000, 12000) i",
      {
        signal,
      },
    );
  }
  // Archive recovery of what is there ends in a new timeline.
  await cluster.stop({ signal });
  await Deno.writeTextFile(`${cluster.dataDirectory}/recovery.signal`, "");
  await cluster.start({ signal, until: "primary" });
  let end: Lsn;
  {
    await using sql = await cluster.connect({ signal });
    await sql.query(
      "insert into accounts select i, 2, 2, '' from generate_series(13000, 19000) i",
      {
        signal,
      },
    );
    end = parseLsn(await ask(sql, "select pg_current_wal_flush_lsn()::text as value", { signal }));
  }
  await cluster.stop({ signal, mode: "immediate" });
  const newest = timelineId(2);
  const history = parseTimelineHistory(
    newest,
    await Deno.readTextFile(`${directory}/00000002.history`),
  );
  const switchPoint = history[0]?.switchPoint ?? end;
  const timelines = [
    await readTimeline(directory, { timeline: timelineId(1), history: [], end: switchPoint }),
    await readTimeline(directory, { timeline: newest, history, end }),
  ];
  const owned = stack.move();
  return {
    major: options.major,
    systemId,
    directory,
    programs: (await testPostgres(options)).directory,
    timelines,
    torn,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function ask(sql: SqlConnection, query: string, options: Waiting): Promise<string> {
  const [row] = await sql.query(query, options);
  return String(row?.["value"]);
}

/** Names of the segments in the directory, in order. */
async function segmentNames(directory: string): Promise<readonly string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(directory)) {
    if (/^[0-9A-F]{24}(\.partial)?$/.test(name)) names.push(name);
  }
  return names.sort();
}

/** The segments of one timeline, from the first that is there up to `end`. */
async function readTimeline(
  directory: string,
  part: {
    readonly timeline: TimelineId;
    readonly history: readonly TimelineSwitch[];
    readonly end: Lsn;
  },
): Promise<RealTimeline> {
  const { timeline, history, end } = part;
  const prefix = segmentName(timeline, lsn(0n), REAL_WAL_SEGMENT_BYTES).slice(0, 8);
  const last = segmentName(timeline, end, REAL_WAL_SEGMENT_BYTES);
  const names = (await segmentNames(directory)).filter((name) =>
    name.startsWith(prefix) && name.slice(0, 24) <= last
  );
  const start = segmentNameStart(names[0] ?? last, REAL_WAL_SEGMENT_BYTES);
  const files = await Promise.all(names.map((name) => Deno.readFile(`${directory}/${name}`)));
  return { timeline, history, start, bytes: concat(files).slice(0, lsnDistance(start, end)) };
}
