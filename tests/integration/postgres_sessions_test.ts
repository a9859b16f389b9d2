import assert from "node:assert/strict";
import { createServer } from "node:net";
import { createBackupSource } from "../../src/adapters/postgres/backup_source.ts";
import { createReplicationSource } from "../../src/adapters/postgres/replication_source.ts";
import { SYSTEM_CLOCK } from "../../src/adapters/process/clock.ts";
import { AppError, findAppError, isKind } from "../../src/base/failure.ts";
import {
  lastSegmentStart,
  lsnAdd,
  parseLsn,
  segmentStart,
  timelineId,
} from "../../src/domain/lsn.ts";
import { startTestCluster } from "../support/postgres.ts";

const signal = AbortSignal.timeout(120_000);
const NOWHERE = "host=127.0.0.1 port=1 user=postgres";

function replication(connectionString: string) {
  return createReplicationSource({ connectionString, clock: SYSTEM_CLOCK });
}

/** Rejects with this kind and a hint that matches. */
async function refused(promise: Promise<unknown>, kind: string, hint: RegExp): Promise<void> {
  await assert.rejects(promise, (error) => {
    const app = findAppError(error);
    assert.equal(app?.kind, kind, String(error));
    assert.match(app.hint ?? "", hint);
    return true;
  });
}

Deno.test("a replication session identifies the system, reserves WAL in a slot, and says who holds it", async () => {
  await using test = await startTestCluster({
    signal,
    segmentSizeBytes: 4 << 20,
    settings: { max_wal_senders: "2", max_replication_slots: "1" },
  });
  const source = replication(test.cluster.connectionString("socket"));
  await using session = await source.connect({ signal });
  assert.ok(session.serverVersion >= 150_000);
  const system = await session.identifySystem({ signal });
  assert.match(system.systemId, /^\d{15,20}$/);
  assert.equal(system.timeline, 1);
  assert.equal(await session.segmentSizeBytes({ signal }), 4 << 20);
  assert.equal(await session.readSlot("klio", { signal }), undefined);
  await session.createSlot("klio", { signal });
  const slot = await session.readSlot("klio", { signal });
  assert.ok(slot?.restartLsn !== undefined && slot.restartLsn <= system.position);
  await refused(session.createSlot("another", { signal }), "source", /max_replication_slots/);
  await assert.rejects(session.createSlot("No-Slot", { signal }), (e) => isKind(e, "config"));
  await assert.rejects(
    session.timelineHistory(timelineId(9), { signal }),
    (e) => isKind(e, "not_found"),
  );

  const request = { start: segmentStart(system.position, 4 << 20), timeline: timelineId(1) };
  const running = await session.startReplication({ slot: "klio", ...request }, { signal });
  {
    await using second = await source.connect({ signal });
    const start = second.startReplication({ slot: "klio", ...request }, { signal });
    await refused(start, "source", /another process/);
  }
  {
    await using second = await source.connect({ signal });
    const start = second.startReplication({ slot: "nosuch", ...request }, { signal });
    await refused(start, "source", /slot vanished/);
  }
  {
    await using second = await source.connect({ signal });
    assert.equal((await second.identifySystem({ signal })).systemId, system.systemId);
    await refused(source.connect({ signal }), "source", /max_wal_senders/);
  }

  // Bytes follow each other from the start; stopping in the middle is clean.
  const stop = new AbortController();
  let position = request.start;
  await assert.rejects(async () => {
    for await (const batch of running.batches(stop)) {
      for (const message of batch) {
        if (message.kind !== "data") continue;
        assert.equal(message.start, position);
        position = lsnAdd(position, message.bytes.length);
      }
      if (position >= system.position) stop.abort(new AppError("cancelled", "enough"));
    }
  }, /enough/);
  const status = { write: position, flush: position, apply: position, replyRequested: false };
  await running.sendStatus(status);
  assert.deepEqual(await running.end({ signal }), { kind: "ended" });
  assert.deepEqual(await running.end({ signal }), { kind: "ended" });
  // The connection is an ordinary one again, and the slot has moved.
  const moved = await session.readSlot("klio", { signal });
  assert.equal(moved?.restartLsn, position);
});

Deno.test("a logical slot, a role without REPLICATION and a wrong database are refused with their reasons", async () => {
  await using test = await startTestCluster({ signal, settings: { wal_level: "logical" } });
  const { cluster } = test;
  await using sql = await cluster.connect({ signal });
  await sql.query("create role nobody login", { signal });
  await sql.query("select pg_create_logical_replication_slot('logical', 'pgoutput')", { signal });
  await using session = await replication(cluster.connectionString()).connect({ signal });
  await assert.rejects(session.readSlot("logical", { signal }), (e) => isKind(e, "source"));
  const asNobody = cluster.connectionString().replace("user=postgres", "user=nobody");
  await refused(replication(asNobody).connect({ signal }), "permission", /REPLICATION/);
  const elsewhere = cluster.connectionString().replace("dbname=postgres", "dbname=nosuch");
  const backup = createBackupSource({ connectionString: elsewhere });
  await refused(backup.connect({ signal }), "config", /dbname/);
});

Deno.test("passwords are checked, over TLS as sslmode asks", async () => {
  await using test = await startTestCluster({ signal });
  const { cluster, directory } = test;
  const made = await new Deno.Command("openssl", {
    args: "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
      .split(" ").concat("-keyout", "server.key", "-out", "server.crt"),
    cwd: directory,
    stderr: "null",
  }).output();
  assert.ok(made.success, "openssl makes a certificate");
  const data = cluster.dataDirectory;
  for (const name of ["server.key", "server.crt"]) {
    await Deno.copyFile(`${directory}/${name}`, `${data}/${name}`);
    await Deno.chmod(`${data}/${name}`, 0o600);
    if (cluster.account) {
      await Deno.chown(`${data}/${name}`, cluster.account.uid, cluster.account.gid);
    }
  }
  {
    await using sql = await cluster.connect({ signal });
    await sql.query("create role secure login replication password 'pass word'", { signal });
    await sql.query("alter system set ssl = on", { signal });
  }
  await Deno.writeTextFile(
    `${data}/pg_hba.conf`,
    "hostssl replication secure 127.0.0.1/32 scram-sha-256\nlocal all all trust\n",
  );
  const base = `host=127.0.0.1 port=${cluster.port} user=secure`;
  const login = async (more: string) => {
    await using session = await replication(`${base} password='pass word' ${more}`).connect({
      signal,
    });
    return (await session.identifySystem({ signal })).timeline;
  };
  await cluster.restart({ signal });
  assert.equal(await login(""), 1); // prefer takes TLS when it is offered
  assert.equal(await login("sslmode=require"), 1);
  assert.equal(await login(`sslmode=verify-ca sslrootcert=${directory}/server.crt`), 1);
  const byName = login(`sslmode=verify-full sslrootcert=${directory}/server.crt`);
  await refused(byName, "source", /not trusted/); // the certificate is for localhost, not for 127.0.0.1
  await refused(login("sslmode=disable"), "permission", /pg_hba/);
  await refused(
    replication(`${base} password=wrong`).connect({ signal }),
    "permission",
    /user and password/,
  );
  await assert.rejects(login("sslmode=verify-full"), (e) => isKind(e, "config"));
  await assert.rejects(
    login(`sslmode=verify-ca sslrootcert=${directory}/none`),
    (e) => isKind(e, "config"),
  );
  const { logFile } = cluster;
  assert.ok(!(await Deno.readTextFile(logFile)).includes("pass word"));
});

Deno.test("an unreachable PostgreSQL is a source failure, and an abort leaves nothing open", async () => {
  await refused(replication(NOWHERE).connect({ signal }), "source", /PostgreSQL runs/);
  await refused(
    replication("host=/nonexistent user=postgres").connect({ signal }),
    "source",
    /PostgreSQL runs/,
  );
  // A peer that takes the connection and says nothing.
  const sockets = new Set<{ destroy(): void }>();
  let onData = () => {};
  const silent = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {/* the client goes away */});
    socket.on("data", () => onData());
  });
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const address = silent.address();
  assert.ok(typeof address === "object" && address !== null);
  const stopped = new AppError("cancelled", "enough");
  for (const sslMode of ["prefer", "disable"]) {
    const stop = new AbortController();
    const accepted = Promise.withResolvers<void>();
    onData = () => accepted.resolve();
    const text = `host=127.0.0.1 port=${address.port} user=postgres sslmode=${sslMode}`;
    const connecting = replication(text).connect(stop);
    await accepted.promise;
    stop.abort(stopped);
    await assert.rejects(connecting, stopped);
  }
  const late = replication(`host=127.0.0.1 port=${address.port} connect_timeout=1`);
  await assert.rejects(late.connect({ signal }), (e) => isKind(e, "timeout"));
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => silent.close(resolve));
});

Deno.test("a backup session starts and stops a backup, and dies with an abort", async () => {
  await using test = await startTestCluster({ signal });
  const { cluster, directory } = test;
  const place = `${directory}/pg/space`;
  await Deno.mkdir(place);
  if (cluster.account) await Deno.chown(place, cluster.account.uid, cluster.account.gid);
  await using sql = await cluster.connect({ signal });
  await sql.query(`create tablespace elsewhere location '${place}'`, { signal });
  const source = createBackupSource({ connectionString: cluster.connectionString("socket") });
  {
    await using session = await source.connect({ signal });
    assert.equal(session.dataDirectory, cluster.dataDirectory);
    assert.equal(session.segmentSizeBytes, 16 << 20);
    assert.equal(session.dataChecksums, true);
    const [space, ...more] = await session.tablespaces({ signal });
    assert.equal(more.length, 0);
    assert.equal(space?.name, "elsewhere");
    assert.equal(space.location, place);
    const start = await session.startBackup({ label: "it's a label", fast: true }, { signal });
    const stop = await session.stopBackup({ signal });
    assert.ok(stop.lsn > start);
    assert.match(stop.backupLabel, /^LABEL: it's a label$/m);
    assert.match(stop.tablespaceMap, new RegExp(`^${space.oid} ${place}$`, "m"));
    // The segment with the end of the backup is complete: PostgreSQL writes into a later one.
    const after = (await sql.query("select pg_current_wal_lsn()::text as lsn", { signal }))[0];
    assert.ok(parseLsn(String(after?.["lsn"])) >= stop.lsn);
    assert.ok(
      segmentStart(parseLsn(String(after?.["lsn"])), 16 << 20) >
        lastSegmentStart(stop.lsn, 16 << 20),
    );
    await assert.rejects(session.stopBackup({ signal }), (e) => isKind(e, "source"));
  }
  await using session = await source.connect({ signal });
  await sql.query("begin", { signal });
  await sql.query("lock pg_tablespace in access exclusive mode", { signal });
  const stop = new AbortController();
  const waiting = session.tablespaces(stop);
  stop.abort(new AppError("cancelled", "enough"));
  await assert.rejects(waiting, /enough/);
  await assert.rejects(session.tablespaces({ signal }), (e) => isKind(e, "source"));
});
