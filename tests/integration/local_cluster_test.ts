import assert from "node:assert/strict";
import { LocalCluster } from "../../src/adapters/postgres/local_cluster.ts";
import { SYSTEM_CLOCK, SYSTEM_RANDOM } from "../../src/adapters/process/clock.ts";
import { isKind } from "../../src/base/failure.ts";
import { startTestCluster, temporaryDirectory, testPostgres } from "../support/postgres.ts";

const signal = AbortSignal.timeout(120_000);

Deno.test("LocalCluster starts, answers over TCP and UNIX socket, survives SIGKILL, and stops", async () => {
  await using test = await startTestCluster({
    signal,
    segmentSizeBytes: 1 << 20,
    settings: { max_wal_senders: "3" },
  });
  const { cluster } = test;
  {
    await using sql = await cluster.connect({ signal });
    assert.deepEqual(
      await sql.query(
        "select current_setting('wal_segment_size') a, current_setting('data_checksums') b, current_setting('max_wal_senders') c, $1::text d",
        { signal, values: ["é"] },
      ),
      [{ a: "1MB", b: "on", c: "3", d: "é" }],
    );
    await sql.query("create table t as select 42 as x", { signal });
  }
  {
    await using sql = await cluster.connect({ signal, over: "socket" });
    assert.deepEqual(await sql.query("select x, inet_server_addr() as a from t", { signal }), [
      { x: 42, a: null },
    ]);
  }
  await cluster.kill();
  assert.equal(cluster.running, false);
  await assert.rejects(cluster.connect({ signal }), (error) => isKind(error, "source"));

  await cluster.start({ signal, until: "primary" });
  await cluster.restart({ signal });
  {
    await using sql = await cluster.connect({ signal });
    assert.deepEqual(await sql.query("select x from t", { signal }), [{ x: 42 }]);
  }
  await cluster.stop({ signal });
  await cluster.stop({ signal });
});

Deno.test("LocalCluster adopts a data directory, and tells the log's end when PostgreSQL exits", async () => {
  await using directory = await temporaryDirectory();
  const options = {
    binaries: await testPostgres({ signal }),
    directory: `${directory.path}/pg`,
    clock: SYSTEM_CLOCK,
    random: SYSTEM_RANDOM,
    signal,
  };
  {
    await using cluster = await LocalCluster.create(options);
    assert.equal(cluster.running, false);
  }
  {
    await using cluster = await LocalCluster.adopt(options);
    await cluster.start({ signal });
  }
  await using broken = await LocalCluster.adopt({ ...options, settings: { no_such: "1" } });
  await assert.rejects(broken.start({ signal }), /no_such/);
  assert.equal(broken.running, false);
});

Deno.test("LocalCluster refuses a directory that PostgreSQL's account cannot enter", async () => {
  if (Deno.uid() !== 0) return; // others run PostgreSQL as themselves
  await using directory = await temporaryDirectory();
  await Deno.chmod(directory.path, 0o700);
  const created = LocalCluster.create({
    binaries: await testPostgres({ signal }),
    directory: `${directory.path}/pg`,
    clock: SYSTEM_CLOCK,
    random: SYSTEM_RANDOM,
    signal,
  });
  await assert.rejects(created, (error) => isKind(error, "permission"));
});
