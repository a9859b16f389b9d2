/**
 * The life of a cluster with real processes: WAL compared byte for byte with pg_receivewal, a backup with a tablespace
 * taken under load, a restore checked by pg_amcheck, and a stock kopia that opens, verifies and restores what klio wrote.
 *
 * @module
 */

import assert from "node:assert/strict";
import { parseWalName } from "../../src/domain/lsn.ts";
import type { LocalCluster } from "../../src/adapters/postgres/local_cluster.ts";
import { reportNoGo, stockKopia } from "../support/stock_kopia.ts";
import { testPostgres } from "../support/postgres.ts";
import { SYSTEM_CLOCK } from "../../src/adapters/process/clock.ts";
import { judgeByKopia } from "./kopia_judge.ts";
import { startRestored, startWorld, type World } from "./world.ts";

const SIGNAL = new AbortController().signal;
const OPTIONS = { signal: SIGNAL };
const POLL_MS = 50;

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!await condition()) await SYSTEM_CLOCK.sleep(POLL_MS, OPTIONS);
}

/** Runs a program as the account of the cluster; standard output. */
async function runAs(
  cluster: LocalCluster,
  program: string,
  args: readonly string[],
): Promise<string> {
  const account = cluster.account;
  const { code, stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    cwd: "/",
    ...(account === undefined ? {} : { uid: account.uid, gid: account.gid }),
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  assert.equal(code, 0, `${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

function isThere(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

const SCHEMA = `
  CREATE TABLE items (id int PRIMARY KEY, body text NOT NULL);
  CREATE INDEX ON items (md5(body));
  CREATE UNLOGGED TABLE scratch (id int);
  INSERT INTO items SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 20000) i;`;

Deno.test("a cluster lives, is backed up, compared, restored and checked", async (t) => {
  const postgres = await testPostgres(OPTIONS);
  await using world = await startWorld({
    ...OPTIONS,
    settings: { max_wal_senders: "5", autovacuum: "off" },
  });
  const { directory, primary, sql } = world;
  const receivewal = `${postgres.directory}/pg_receivewal`;
  const received = `${directory}/received`;
  const withReceiver = isThere(receivewal);
  await using receiver = new AsyncDisposableStack();

  await t.step("data in two tablespaces, with writes that go on during the backup", async () => {
    await Deno.mkdir(received);
    const tablespace = `${directory}/space`;
    await Deno.mkdir(tablespace);
    const { account } = primary;
    if (account !== undefined) {
      await Deno.chown(received, account.uid, account.gid);
      await Deno.chown(tablespace, account.uid, account.gid);
    }
    if (withReceiver) {
      const child = new Deno.Command(receivewal, {
        args: ["-D", received, "-d", primary.connectionString("socket"), "--synchronous"],
        cwd: "/",
        ...(account === undefined ? {} : { uid: account.uid, gid: account.gid }),
        stdin: "null",
        stdout: "null",
        stderr: "null",
      }).spawn();
      receiver.defer(async () => {
        child.kill("SIGKILL");
        await child.status;
      });
      await until(async () =>
        (await sql.query(
          "SELECT 1 FROM pg_stat_replication WHERE application_name = 'pg_receivewal'",
          OPTIONS,
        )).length > 0
      );
    }
    for (const statement of SCHEMA.split(";").filter((s) => s.trim() !== "")) {
      await sql.query(statement, OPTIONS);
    }
    await sql.query(`CREATE TABLESPACE space LOCATION '${tablespace}'`, OPTIONS);
    await sql.query(
      "CREATE TABLE elsewhere TABLESPACE space AS SELECT i FROM generate_series(1, 5000) i",
      OPTIONS,
    );
  });

  await t.step("backup run, list and show agree, and the state is true", async () => {
    const writing = new AbortController();
    const writer = (async () => {
      await using connection = await primary.connect(OPTIONS);
      for (let i = 0; !writing.signal.aborted; i++) {
        await connection.query("UPDATE items SET body = body || 'x' WHERE id % 100 = $1::int", {
          ...OPTIONS,
          values: [i % 100],
        });
      }
    })();
    const run = JSON.parse(await world.run("backup", "run", "--name", "first"));
    writing.abort();
    await writer;
    assert.equal(run.name, "first");
    assert.ok(run.statistics.bytes > 20_000_000, String(run.statistics.bytes));
    const [listed, ...others] = JSON.parse(await world.run("backup", "list", "--json"));
    assert.deepEqual(others, []);
    assert.deepEqual([listed.name, listed.state, listed.startWal], [
      "first",
      "complete",
      run.startWal,
    ]);
    assert.match(
      await world.run("backup", "list"),
      /^BACKUP ID +ENDED[\s\S]*\nfirst .* complete\n$/,
    );
    assert.match(
      await world.run("backup", "show", "first"),
      /State: +complete\n[\s\S]*Tablespace: +space /,
    );
  });

  await t.step("the archive equals what pg_receivewal stored, byte for byte", async () => {
    if (!withReceiver) return console.log("not run: no pg_receivewal");
    for (let i = 0; i < 3; i++) {
      await sql.query(
        "INSERT INTO items SELECT i, md5(i::text) FROM generate_series(1, 1000) i ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        OPTIONS,
      );
      await sql.query("SELECT pg_switch_wal()", OPTIONS);
    }
    await waitUntilStreamed(world);
    let compared = 0;
    for await (const { name } of Deno.readDir(received)) {
      if (name.endsWith(".partial") || parseWalName(name).kind !== "segment") continue;
      await world.run("wal", "get", name, `${directory}/fetched`);
      assert.deepEqual(
        await Deno.readFile(`${directory}/fetched`),
        await Deno.readFile(`${received}/${name}`),
        name,
      );
      compared++;
    }
    assert.ok(compared >= 3, `${compared} segments`);
  });

  const restored = `${directory}/restored`;
  await t.step(
    "restore writes a data directory",
    async () => {
      await Deno.mkdir(restored);
      const { account } = primary;
      const owner = account === undefined ? [] : ["--owner", `${account.uid}:${account.gid}`];
      await world.run(
        "restore",
        `${restored}/data`,
        "--tablespace",
        `space=${restored}/space`,
        ...owner,
      );
    },
  );

  await t.step(
    "stock kopia opens the repository, verifies it, and restores the same files",
    async () => {
      const kopia = await stockKopia();
      if (kopia === undefined) return reportNoGo();
      await judgeByKopia({
        kopia,
        directory,
        restored: `${restored}/data`,
        parts: ["controldata", "metadata", "pgdata", "tablespace"],
      });
    },
  );

  await t.step("PostgreSQL recovers it and pg_amcheck accepts it", async () => {
    await using cluster = await startRestored(restored, OPTIONS);
    await using connection = await cluster.connect(OPTIONS);
    const count = async (query: string, on = connection) =>
      Number((await on.query(query, OPTIONS))[0]?.["n"]);
    const digest =
      "SELECT ('x' || left(md5(string_agg(id || body, '' ORDER BY id)), 12))::bit(48)::bigint AS n FROM items";
    assert.equal(await count(digest), await count(digest, sql));
    assert.equal(await count("SELECT count(*) AS n FROM elsewhere"), 5000);
    assert.equal(await count("SELECT count(*) AS n FROM scratch"), 0);
    const amcheck = `${postgres.directory}/pg_amcheck`;
    if (!isThere(amcheck)) return console.log("not run: no pg_amcheck");
    await connection.query("CREATE EXTENSION amcheck", OPTIONS);
    const where = [
      "-h",
      cluster.socketDirectory,
      "-p",
      String(cluster.port),
      "-U",
      cluster.superuser,
    ];
    await runAs(cluster, amcheck, [...where, "--all", "--heapallindexed", "--parent-check"]);
  });

  await t.step(
    "SIGTERM drains streamer and server, both exit with 0, and nothing durable is lost",
    async () => {
      await waitUntilStreamed(world);
      assert.equal(await world.streamer.stop(OPTIONS), 0);
      assert.equal(await world.server.stop(OPTIONS), 0);
    },
  );
});

/** Waits until the server has confirmed everything that PostgreSQL has written. */
async function waitUntilStreamed({ sql }: World): Promise<void> {
  const [row] = await sql.query("SELECT pg_current_wal_flush_lsn()::text AS lsn", OPTIONS);
  await until(async () =>
    (await sql.query(
      "SELECT 1 FROM pg_stat_replication WHERE application_name = 'klio' AND flush_lsn >= $1::pg_lsn",
      { ...OPTIONS, values: [row?.["lsn"]] },
    )).length > 0
  );
}
