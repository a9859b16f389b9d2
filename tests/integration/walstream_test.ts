import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { LocalCluster } from "../../src/adapters/postgres/local_cluster.ts";
import { openLocalFiles } from "../../src/adapters/localfs/files.ts";
import { createReplicationSource } from "../../src/adapters/postgres/replication_source.ts";
import type { SqlConnection } from "../../src/adapters/postgres/sql_connection.ts";
import { SYSTEM_CLOCK, SYSTEM_RANDOM } from "../../src/adapters/process/clock.ts";
import { AppError, findAppError, isKind } from "../../src/base/failure.ts";
import { type Logger, SILENT } from "../../src/base/log.ts";
import { historyName, type Lsn, lsnMax, parseLsn, timelineId } from "../../src/domain/lsn.ts";
import { gapOver } from "../../src/domain/wal_gap.ts";
import type { WalServer } from "../../src/ports/wal_server.ts";
import { parseTimelineHistory } from "../../src/domain/timeline_history.ts";
import {
  STREAM_WAL_DEFAULTS,
  type StreamProgress,
  streamWal,
  type StreamWalConfig,
} from "../../src/features/walstream/mod.ts";
import { MemoryWalServer } from "../support/memory_wal_server.ts";
import { startTestCluster, testPostgres } from "../support/postgres.ts";
import { openArchive, volume } from "../support/wal_archive_world.ts";

const SEGMENT_SIZE_BYTES = 1 << 20;
const signal = AbortSignal.timeout(240_000);

interface Streamer extends AsyncDisposable {
  readonly progress: readonly StreamProgress[];
  readonly last: StreamProgress;
  /** Messages of level error. */
  readonly errors: readonly string[];
  /** Settles when the streamer does. */
  readonly ended: Promise<void>;
  stop(): Promise<void>;
}

function startStreamer(
  cluster: LocalCluster,
  server: WalServer,
  options: Partial<StreamWalConfig> & { readonly over?: "tcp" | "socket" } = {},
): Streamer {
  const { over = "socket", ...config } = options;
  const errors: string[] = [];
  const log: Logger = { ...SILENT, error: (message) => void errors.push(message), with: () => log };
  const files = openLocalFiles();
  const stopping = new AbortController();
  const progress: StreamProgress[] = [];
  const ended = streamWal({
    source: createReplicationSource({
      connectionString: cluster.connectionString(over),
      clock: SYSTEM_CLOCK,
    }),
    server,
    clock: SYSTEM_CLOCK,
    random: SYSTEM_RANDOM,
    log,
    files,
    onProgress: (p) => progress.push(p),
  }, {
    cluster: "c",
    ...STREAM_WAL_DEFAULTS,
    backoff: { firstMs: 20, maxMs: 100 },
    ...config,
  }, { signal: stopping.signal });
  ended.catch(() => {/* looked at by the test */});
  const stop = () => {
    stopping.abort(new AppError("cancelled", "The test is over"));
    return ended;
  };
  return {
    progress,
    errors,
    get last() {
      const last = progress.at(-1);
      assert.ok(last);
      return last;
    },
    ended,
    stop,
    [Symbol.asyncDispose]: () =>
      stop().catch(() => {/* the test has looked at it, or fails by itself */}),
  };
}

/** Writes a few MiB of WAL; its end. */
async function writeWal(sql: SqlConnection, rows = 20_000): Promise<Lsn> {
  await sql.query("create table if not exists t (i int, x text)", { signal });
  await sql.query(
    `insert into t select i, repeat(md5(i::text), 5) from generate_series(1, ${rows}) i`,
    { signal },
  );
  return await currentLsn(sql);
}

async function currentLsn(sql: SqlConnection): Promise<Lsn> {
  const [row] = await sql.query("select pg_current_wal_flush_lsn()::text as lsn", { signal });
  return parseLsn(String(row?.["lsn"]));
}

/** Waits for something that the streamer does; the database is busy meanwhile, which makes time pass for both. */
async function until(sql: SqlConnection, condition: () => boolean): Promise<void> {
  while (!condition()) await sql.query("select pg_sleep(0.01)", { signal });
}

async function untilDurable(server: MemoryWalServer, end: Lsn): Promise<void> {
  await server.until(() => server.durable >= end, { signal });
}

/** Everything the server holds equals PostgreSQL's own files; how many segments that were. */
async function compareWithPgWal(cluster: LocalCluster, server: MemoryWalServer): Promise<number> {
  for (const [name, segment] of server.segments) {
    const file = await Deno.readFile(`${cluster.dataDirectory}/pg_wal/${name}`);
    assert.equal(
      Buffer.compare(
        file.subarray(0, segment.length),
        segment.bytes.subarray(0, segment.length),
      ),
      0,
      `${name} equals PostgreSQL's up to ${segment.length}`,
    );
  }
  return server.segments.size;
}

Deno.test("streamWal() stores over UNIX socket and TCP, byte for byte, what pg_receivewal stores", async () => {
  await using test = await startTestCluster({
    signal,
    segmentSizeBytes: SEGMENT_SIZE_BYTES,
    settings: { wal_keep_size: "256MB" },
  });
  const { cluster, directory } = test;
  await using sql = await cluster.connect({ signal });
  await sql.query("select pg_create_physical_replication_slot('oracle', true)", { signal });
  const servers = [new MemoryWalServer(), new MemoryWalServer()];
  await using local = startStreamer(cluster, servers[0] ?? assert.fail());
  await using remote = startStreamer(cluster, servers[1] ?? assert.fail(), {
    over: "tcp",
    slot: "klio_tcp",
  });
  let end = await writeWal(sql);
  await sql.query("select pg_switch_wal()", { signal });
  end = lsnMax(end, await writeWal(sql));
  for (const server of servers) {
    await untilDurable(server, end);
    assert.ok(await compareWithPgWal(cluster, server) > 5);
  }
  // PostgreSQL sees what is durable, and nothing else.
  const replicas = await sql.query(
    "select flush_lsn::text, replay_lsn::text, write_lsn::text from pg_stat_replication where application_name = 'klio'",
    { signal },
  );
  assert.equal(replicas.length, 2);
  for (const replica of replicas) {
    assert.ok(parseLsn(String(replica["flush_lsn"])) <= local.last.durable);
    assert.equal(replica["replay_lsn"], replica["flush_lsn"]);
  }
  await local.stop();
  await remote.stop();
  for (const streamer of [local, remote]) {
    assert.equal(streamer.last.state, "stopped");
    assert.equal(streamer.last.durable, streamer.last.received);
    assert.ok(streamer.last.flushLag.samples > 0);
  }

  const { directory: programs } = await testPostgres({ signal });
  const files = `${directory}/oracle`;
  await Deno.mkdir(files);
  const [row] = await sql.query("select pg_current_wal_flush_lsn()::text as lsn", { signal });
  let output: Deno.CommandOutput;
  try {
    output = await new Deno.Command(`${programs}/pg_receivewal`, {
      args: ["--no-loop", "--slot=oracle", "-D", files, `--endpos=${row?.["lsn"]}`, "-d"]
        .concat(cluster.connectionString("socket")),
      stderr: "piped",
    }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return console.log("not run: no pg_receivewal"); // the npm package has none
  }
  assert.ok(output.success, new TextDecoder().decode(output.stderr));
  for (const server of servers) {
    let compared = 0;
    for (const [name, segment] of server.segments) {
      const file = await readIfThere(`${files}/${name}`) ??
        await readIfThere(`${files}/${name}.partial`);
      if (file === undefined) continue;
      compared++;
      const stored = segment.bytes.subarray(0, segment.length);
      assert.equal(Buffer.compare(file.subarray(0, segment.length), stored), 0, name);
    }
    assert.ok(compared > 5);
  }
});

Deno.test("streamWal() reuses its slot and goes on after restarts of PostgreSQL and of itself", async () => {
  await using test = await startTestCluster({
    signal,
    segmentSizeBytes: SEGMENT_SIZE_BYTES,
    settings: { wal_keep_size: "256MB" },
  });
  const { cluster } = test;
  const server = new MemoryWalServer();
  const slots = async (sql: SqlConnection) =>
    await sql.query("select slot_name, restart_lsn::text as lsn from pg_replication_slots", {
      signal,
    });
  let before: Lsn;
  {
    await using streamer = startStreamer(cluster, server);
    {
      await using sql = await cluster.connect({ signal });
      before = await writeWal(sql);
      await untilDurable(server, before);
    }
    await cluster.kill();
    await cluster.start({ signal });
    await using sql = await cluster.connect({ signal });
    const end = await writeWal(sql);
    await untilDurable(server, end);
    assert.ok(streamer.last.failures > 0);
    assert.equal(streamer.last.lastError, undefined);
    await cluster.stop({ signal }); // waits for the streamer to have everything
    assert.ok(server.durable > end);
    await streamer.stop();
  }
  await cluster.start({ signal });
  await using sql = await cluster.connect({ signal });
  const [slot] = await slots(sql);
  assert.ok(parseLsn(String(slot?.["lsn"])) >= before);
  await using streamer = startStreamer(cluster, server);
  await untilDurable(server, await writeWal(sql));
  const [after, ...others] = await slots(sql);
  assert.equal(others.length, 0);
  assert.ok(parseLsn(String(after?.["lsn"])) >= parseLsn(String(slot?.["lsn"])));
  for (const p of streamer.progress) assert.ok(p.reported <= p.durable);
  await compareWithPgWal(cluster, server);
});

Deno.test("streamWal() keeps the walsender alive while the server stalls", async () => {
  await using test = await startTestCluster({
    signal,
    segmentSizeBytes: SEGMENT_SIZE_BYTES,
    settings: { wal_sender_timeout: "1s", wal_keep_size: "256MB" },
  });
  const { cluster } = test;
  const server = new MemoryWalServer();
  await using streamer = startStreamer(cluster, server, { statusIntervalMs: 200 });
  await using sql = await cluster.connect({ signal });
  await untilDurable(server, await writeWal(sql, 100));
  const walsender = () => sql.query("select pid from pg_stat_replication", { signal });
  const before = await walsender();
  server.stall();
  const durable = server.durable;
  // More than all buffers on the way can hold: PostgreSQL is blocked, and so are its keepalives.
  const end = await writeWal(sql, 60_000);
  await sql.query(
    `do $$ declare s timestamptz := clock_timestamp(); begin
       while not exists (select from pg_stat_replication where reply_time > s + '3 s') loop
         if clock_timestamp() > s + '20 s' then raise 'no replies'; end if;
         perform pg_sleep(0.05); perform pg_stat_clear_snapshot();
       end loop; end $$`,
    { signal },
  );
  assert.deepEqual(await walsender(), before);
  assert.equal(server.durable, durable);
  assert.ok(streamer.last.received - durable < 8n << 20n, "little is read ahead");
  server.resume();
  await untilDurable(server, end);
  assert.equal(streamer.last.failures, 0);
  await compareWithPgWal(cluster, server);
});

Deno.test("streamWal() follows a promotion, with the history stored before the new timeline's WAL", async () => {
  await using test = await startTestCluster({
    signal,
    segmentSizeBytes: SEGMENT_SIZE_BYTES,
    settings: { wal_keep_size: "256MB" },
  });
  const { cluster } = test;
  {
    await using sql = await cluster.connect({ signal });
    await writeWal(sql);
  }
  await cluster.stop({ signal });
  await Deno.writeTextFile(`${cluster.dataDirectory}/standby.signal`, "");
  await cluster.start({ signal });
  const server = new MemoryWalServer();
  await using streamer = startStreamer(cluster, server);
  await server.until(() => server.durable > 0n, { signal });
  await using sql = await cluster.connect({ signal });
  assert.deepEqual(await sql.query("select pg_promote() as ok", { signal }), [{ ok: true }]);
  await untilDurable(server, await writeWal(sql));
  assert.equal(streamer.last.timeline, 2);
  assert.equal(streamer.last.failures, 0, "the connection was kept");
  const order = server.notes.flatMap((n) =>
    n.kind === "durable" ? [] : [`${n.kind} ${"timeline" in n ? n.timeline : ""}`]
  );
  assert.deepEqual(order, [
    "request_start ",
    "request_start ",
    "append 1",
    "history 2",
    "append 2",
  ]);
  const stored = server.histories.get(historyName(timelineId(2)));
  const file = await Deno.readFile(`${cluster.dataDirectory}/pg_wal/00000002.history`);
  assert.deepEqual(new Uint8Array(stored ?? []), new Uint8Array(file));
  await compareWithPgWal(cluster, server);

  // A new streamer stores the history at its start, too, and goes on where the server is.
  await streamer.stop();
  server.histories.clear();
  await using again = startStreamer(cluster, server);
  await untilDurable(server, await writeWal(sql));
  assert.equal(again.last.timeline, 2);
  assert.equal(server.histories.size, 1);

  // An empty server that asks for the old timeline gets it from the archive's beginning, then the switch.
  await again.stop();
  const behind = new MemoryWalServer();
  const oldest = [...server.segments.keys()].sort()[0] ?? assert.fail("nothing stored");
  behind.requestStart = () => Promise.resolve(oldest);
  await using historic = startStreamer(cluster, behind);
  await untilDurable(behind, await writeWal(sql, 10));
  assert.equal(historic.last.failures, 0);
  assert.deepEqual([...behind.segments.keys()].sort(), [...server.segments.keys()].sort());
  await compareWithPgWal(cluster, behind);

  // A start exactly at the switch point: PostgreSQL answers with the next timeline instead of a stream.
  const [ancestor] = parseTimelineHistory(timelineId(2), new TextDecoder().decode(file));
  assert.ok(ancestor !== undefined);
  await historic.stop();
  await using session = await createReplicationSource({
    connectionString: cluster.connectionString(),
    clock: SYSTEM_CLOCK,
  }).connect({ signal });
  const request = { slot: "klio", timeline: timelineId(1), start: ancestor.switchPoint };
  const nothing = await session.startReplication(request, { signal });
  for await (const batch of nothing.batches({ signal })) {
    assert.fail(`got ${batch.length} messages`);
  }
  assert.deepEqual(await nothing.end({ signal }), {
    kind: "timeline_switch",
    nextTimeline: 2,
    nextStart: ancestor.switchPoint,
  });
  assert.equal((await session.identifySystem({ signal })).timeline, 2);
});

Deno.test("streamWal() stops at once, with a hint, when pg_hba.conf refuses replication", async () => {
  await using test = await startTestCluster({ signal });
  const { cluster } = test;
  await Deno.writeTextFile(`${cluster.dataDirectory}/pg_hba.conf`, "local all all trust\n");
  await cluster.restart({ signal });
  const local = startStreamer(cluster, new MemoryWalServer());
  await assert.rejects(local.ended, (error) => {
    assert.ok(isKind(error, "permission"));
    assert.match(findAppError(error)?.hint ?? "", /local replication postgres peer/);
    return true;
  });
  assert.equal(local.last.state, "failed");
  const remote = startStreamer(cluster, new MemoryWalServer(), { over: "tcp" });
  await assert.rejects(remote.ended, (error) => {
    assert.match(findAppError(error)?.hint ?? "", /host replication postgres/);
    return isKind(error, "permission");
  });
});

/** Has PostgreSQL recycle what no slot holds back. */
async function churn(sql: SqlConnection, rounds = 6): Promise<void> {
  for (let i = 0; i < rounds; i++) {
    await writeWal(sql, 100);
    await sql.query("select pg_switch_wal()", { signal });
    await sql.query("checkpoint", { signal });
  }
}

Deno.test("streamWal() records a gap for WAL that PostgreSQL has removed, and goes on behind it", async () => {
  await using test = await startTestCluster({
    signal,
    segmentSizeBytes: SEGMENT_SIZE_BYTES,
    settings: { min_wal_size: "2MB", max_wal_size: "4MB" },
  });
  const { cluster } = test;
  await using archive = await openArchive(await volume());
  await using sql = await cluster.connect({ signal });
  {
    await using streamer = startStreamer(cluster, archive);
    const end = await writeWal(sql);
    await until(sql, () => streamer.last.durable >= end);
  }
  await sql.query("select pg_drop_replication_slot('klio')", { signal });
  await churn(sql);
  await using streamer = startStreamer(cluster, archive);
  const end = await writeWal(sql);
  await until(sql, () => streamer.last.durable >= end);
  const { gaps: [gap, ...more] } = await archive.metadata("c", { signal });
  assert.ok(gap !== undefined && more.length === 0);
  assert.match(gap.start, /^[0-9A-F]{24}(\.partial)?$/);
  assert.equal(streamer.errors.filter((m) => m.startsWith("WAL is lost")).length, 1);
  // What is behind the gap is PostgreSQL's, what is in it is absent, and a backup across it is not complete.
  const { blocks } = await archive.get({ cluster: "c", name: gap.end }, { signal });
  const stored = Buffer.concat(await Array.fromAsync(blocks));
  const file = await Deno.readFile(`${cluster.dataDirectory}/pg_wal/${gap.end}`);
  assert.equal(Buffer.compare(stored, file), 0);
  const first = gap.start.slice(0, 24);
  const missing = await archive.closeBackup({
    cluster: "c",
    backupName: "b",
    timeline: timelineId(1),
    startWal: first,
    endWal: gap.end,
    segmentSizeBytes: SEGMENT_SIZE_BYTES,
  }, { signal });
  assert.ok(missing.length > 0);
  for (const name of missing) {
    assert.equal(gapOver([gap], name), gap);
    await assert.rejects(archive.get({ cluster: "c", name }, { signal }), { kind: "not_found" });
  }
  // The next start knows of the gap, and records no other one.
  await streamer.stop();
  await using again = startStreamer(cluster, archive);
  const later = await writeWal(sql, 10);
  await until(sql, () => again.last.durable >= later);
  assert.equal((await archive.metadata("c", { signal })).gaps.length, 1);
});

Deno.test("streamWal() replaces a slot that PostgreSQL has invalidated", async () => {
  await using test = await startTestCluster({
    signal,
    segmentSizeBytes: SEGMENT_SIZE_BYTES,
    settings: { min_wal_size: "2MB", max_wal_size: "4MB", max_slot_wal_keep_size: "3MB" },
  });
  const { cluster } = test;
  const server = new MemoryWalServer();
  await using sql = await cluster.connect({ signal });
  {
    await using _streamer = startStreamer(cluster, server);
    await untilDurable(server, await writeWal(sql, 100));
  }
  await churn(sql, 10);
  const status = () =>
    sql.query("select wal_status from pg_replication_slots where slot_name = 'klio'", { signal });
  assert.deepEqual(await status(), [{ wal_status: "lost" }]);
  await using streamer = startStreamer(cluster, server);
  await untilDurable(server, await writeWal(sql, 100));
  assert.notDeepEqual(await status(), [{ wal_status: "lost" }]);
  assert.equal(server.gaps.length, 1);
  assert.equal(streamer.errors.length, 1);
});

Deno.test("streamWal() gives its slot up over the budget, PostgreSQL frees the disk, a gap is recorded", async () => {
  await using test = await startTestCluster({
    signal,
    segmentSizeBytes: SEGMENT_SIZE_BYTES,
    settings: { min_wal_size: "2MB", max_wal_size: "4MB" },
  });
  const { cluster } = test;
  const server = new MemoryWalServer();
  await using sql = await cluster.connect({ signal });
  await using streamer = startStreamer(cluster, server, {
    slotLimits: { budgetBytes: 20 << 20, release: "over_budget" },
    slotWatchIntervalMs: 50,
    drainTimeoutMs: 100,
  });
  await untilDurable(server, await writeWal(sql, 100));
  server.stall();
  while (streamer.errors.filter((m) => m.startsWith("Gave up")).length === 0) {
    await writeWal(sql, 10_000);
  }
  const seen = streamer.progress.flatMap((p) => p.slot === undefined ? [] : [p.slot]);
  assert.ok(seen.some((slot) => slot.retainedBytes > 20 << 20));
  assert.ok(seen.every((slot) => slot.roomBytes !== undefined));
  await until(sql, () => streamer.last.state === "streaming" || streamer.last.failures > 0);
  await churn(sql, 3);
  const kept = await Array.fromAsync(Deno.readDir(`${cluster.dataDirectory}/pg_wal`));
  assert.ok(kept.length < 15, `${kept.length} segments are kept`);
  server.resume();
  await untilDurable(server, await writeWal(sql, 100));
  assert.equal(server.gaps.length, 1);
  assert.equal(streamer.errors.filter((m) => m.startsWith("WAL is lost")).length, 1);
});

Deno.test("streamWal() ends in bounded time when asked to stop while the server stalls", async () => {
  await using test = await startTestCluster({ signal, segmentSizeBytes: SEGMENT_SIZE_BYTES });
  const { cluster } = test;
  const server = new MemoryWalServer();
  await using streamer = startStreamer(cluster, server, { drainTimeoutMs: 100 });
  await using sql = await cluster.connect({ signal });
  await untilDurable(server, await writeWal(sql));
  server.stall();
  await writeWal(sql);
  await streamer.stop();
  assert.equal(streamer.last.state, "stopped");
  assert.ok(streamer.progress.some((p) => p.state === "draining"));
  assert.equal(streamer.last.durable, server.durable);
});

async function readIfThere(path: string): Promise<Uint8Array | undefined> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
