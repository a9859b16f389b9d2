/**
 * What goes wrong between klio, its server and PostgreSQL, in a world that otherwise works: certificates, unreachable
 * peers, another database under the same name, missing rights, and restores that must not happen. Each has a clear error,
 * the documented exit code, and leaves nothing behind.
 *
 * @module
 */

import assert from "node:assert/strict";
import { SYSTEM_CLOCK, SYSTEM_RANDOM } from "../../src/adapters/process/clock.ts";
import { LocalCluster } from "../../src/adapters/postgres/local_cluster.ts";
import {
  createAuthority,
  createDevCertificates,
  issueClientCertificate,
  type KeyedCertificate,
} from "../../src/adapters/x509/certificates.ts";
import { testPostgres } from "../support/postgres.ts";
import { klio, type Outcome } from "./klio_process.ts";
import { CLUSTER, startWorld, type World } from "./world.ts";

const OPTIONS = { signal: new AbortController().signal };
const HOUR_MS = 3_600_000;

function check(outcome: Outcome, code: number, message: RegExp, hint?: RegExp): void {
  assert.match(String(outcome.last["error"]), message, outcome.stderr);
  if (hint !== undefined) assert.match(String(outcome.last["hint"]), hint, outcome.stderr);
  assert.equal(outcome.code, code, outcome.stderr);
  assert.equal(outcome.last["exit_code"], code);
  assert.equal(outcome.stdout, "");
}

async function writeClient(directory: string, made: KeyedCertificate): Promise<readonly string[]> {
  await Deno.mkdir(directory);
  await Deno.writeTextFile(`${directory}/client.crt`, made.certificatePem);
  await Deno.writeTextFile(`${directory}/client.key`, made.keyPem, { mode: 0o600 });
  return ["base", "wal"].flatMap((section) => [
    `--client-${section}-client-cert-path=${directory}/client.crt`,
    `--client-${section}-client-key-path=${directory}/client.key`,
  ]);
}

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function otherCluster(world: World, name: string): Promise<LocalCluster> {
  return await LocalCluster.create({
    ...OPTIONS,
    clock: SYSTEM_CLOCK,
    random: SYSTEM_RANDOM,
    binaries: await testPostgres(OPTIONS),
    directory: `${world.directory}/${name}`,
  });
}

Deno.test("bad set-ups end with a clear error and the documented exit code, and leave nothing behind", async (t) => {
  await using world = await startWorld(OPTIONS);
  const { directory, primary } = world;
  const config = `--config=${directory}/client.yaml`;
  const json = "--log-format=json";
  const run = (...words: string[]) => klio([...words, config, json]);
  const backup = JSON.parse(await world.run("backup", "run", "--name", "only"));

  await t.step(
    "certificates: another CA, expired, CN without cluster, CN of another cluster",
    async () => {
      const nowMs = Date.now();
      const valid = { notBeforeMs: nowMs - HOUR_MS, notAfterMs: nowMs + HOUR_MS };
      const stranger = createAuthority({ commonName: "stranger", ...valid });
      const issue = (name: string, commonName: string, validity = valid, authority = stranger) =>
        writeClient(
          `${directory}/${name}`,
          issueClientCertificate(authority, { commonName, ...validity }),
        );
      const ended = { notBeforeMs: nowMs - 2 * HOUR_MS, notAfterMs: nowMs - HOUR_MS };
      const foreign = await issue("foreign", `klio@${CLUSTER}`);
      const expired = await issue("expired", `klio@${CLUSTER}`, ended);
      const nameless = await issue("nameless", "klio");
      const elsewhere = await issue("elsewhere", "klio@elsewhere");
      const list = (flags: readonly string[]) => run("backup", "list", ...flags);
      check(await list(foreign), 77, /refused our client certificate/, /signed by a CA/);
      check(await list(expired), 77, /client certificate .*expired/, /renew/);
      check(await list(nameless), 77, /"CN=klio": wanted a common name of the form user@cluster/);
      check(await list(elsewhere), 77, /it is for cluster "elsewhere"/, /client\.cluster_name/);
      check(
        await run(
          "wal",
          "get",
          "000000010000000000000001",
          `${directory}/w`,
          ...foreign.filter((flag) => flag.includes("-wal-")),
        ),
        77,
        /refused our client certificate/,
      );
      assert.equal(isThere(`${directory}/w`), false);
    },
  );

  await t.step("a server that shows a certificate of another CA is not trusted", async () => {
    const other = createDevCertificates({ cluster: CLUSTER, user: "klio", nowMs: Date.now() });
    await Deno.writeTextFile(`${directory}/other-ca.crt`, other.authority.certificatePem);
    const untrusted = `--client-base-server-cert-path=${directory}/other-ca.crt`;
    check(await run("backup", "list", untrusted), 77, /Trust klio server "localhost"/);
  });

  await t.step("the Klio server is unreachable", async () => {
    check(await run("backup", "list", "--client-base-url=https://localhost:1"), 69, /localhost:1/);
    const gone = await run(
      "wal",
      "get",
      "000000010000000000000001",
      `${directory}/w`,
      "--client-wal-address=localhost:1",
    );
    check(gone, 69, /localhost:1/);
    assert.equal(isThere(`${directory}/w`), false);
  });

  await t.step("a WAL file that the archive does not have is exit code 4 and no file", async () => {
    const outcome = await run("wal", "get", "00000009.history", `${directory}/w`);
    assert.equal(outcome.code, 4, outcome.stderr);
    assert.equal(isThere(`${directory}/w`), false);
    check(await run("wal", "get", "nonsense", `${directory}/w`), 64, /WAL file name "nonsense"/);
  });

  await t.step("PostgreSQL is down", async () => {
    const down = "--source-standard-dsn=host=127.0.0.1 port=1 user=postgres dbname=postgres";
    check(
      await run("backup", "run", down),
      68,
      /Connect to PostgreSQL at "127\.0\.0\.1:1"/,
      /check that PostgreSQL runs/,
    );
  });

  await t.step(
    "another database under the name of this cluster is refused, and the archive stays as it was",
    async () => {
      await using other = await otherCluster(world, "other");
      await other.start(OPTIONS);
      const outcome = await run("stream-wal", `--source-dsn=${other.connectionString("socket")}`);
      check(outcome, 75, /it belongs to system \d+/, /another cluster name/);
      const [listed] = JSON.parse(await world.run("backup", "list", "--json"));
      assert.equal(listed.state, "complete");
    },
  );

  await t.step(
    "pg_hba.conf does not allow replication: the hint shows the line to add",
    async () => {
      await using strict = await otherCluster(world, "strict");
      await Deno.writeTextFile(
        `${strict.dataDirectory}/pg_hba.conf`,
        "local all all trust\nhost all all 127.0.0.1/32 trust\n",
      );
      await strict.start(OPTIONS);
      const outcome = await run("stream-wal", `--source-dsn=${strict.connectionString("socket")}`);
      check(outcome, 77, /pg_hba\.conf/, /local +replication/);
    },
  );

  await t.step(
    "restore refuses a directory that is not empty and touches nothing in it",
    async () => {
      const target = `${directory}/occupied`;
      await Deno.mkdir(target);
      await Deno.writeTextFile(`${target}/precious`, "data");
      check(
        await run("restore", target),
        75,
        /wanted an empty or absent directory/,
        /choose another/,
      );
      assert.deepEqual((await Array.fromAsync(Deno.readDir(target))).map((e) => e.name), [
        "precious",
      ]);
    },
  );

  await t.step(
    "restore refuses an unknown backup and a target before the first backup, and creates nothing",
    async () => {
      const target = `${directory}/never`;
      check(
        await run("restore", target, "--backup-id=backup-19990101000000"),
        66,
        /"backup-19990101000000".*known are: only/,
      );
      check(
        await run("restore", target, "--target-time=1999-01-01T00:00:00Z"),
        66,
        /first backup "only" ended at/,
        /later target/,
      );
      check(await run("restore", target, "--target-time=tomorrow"), 64, /target time "tomorrow"/);
      check(await run("restore", target, "--target-lsn=zero"), 64, /LSN "zero"/);
      check(
        await run("restore", target, "--target-lsn=0/1", "--target-immediate"),
        64,
        /only one of/,
      );
      check(await run("backup", "show", "absent"), 66, /backup "absent"/);
      assert.equal(isThere(target), false);
    },
  );

  await t.step("a backup name that exists is refused before anything is copied", async () => {
    check(await run("backup", "run", "--name=only"), 75, /"only"/);
    check(await run("backup", "run", "--name=a b"), 64, /backup name "a b"/);
    assert.equal(JSON.parse(await world.run("backup", "list", "--json")).length, 1);
    assert.equal(backup.name, "only");
  });

  await t.step(
    "a second server on the same directories, a wrong encryption key, a port in use",
    async () => {
      const server = (...flags: string[]) =>
        klio(["server", `--config=${directory}/server.yaml`, json, ...flags]);
      check(await server(), 75, /another process/, /stop the other/);
      await world.streamer.stop(OPTIONS);
      await world.server.stop(OPTIONS);
      await Deno.writeTextFile(`${directory}/wrong.key`, "not the key at all\n");
      check(
        await server(`--tier1-encryption-key-file=${directory}/wrong.key`),
        77,
        /password|encryption key/,
      );
      const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      try {
        const outcome = await server(`--tier1-base-listen-address=127.0.0.1:${taken.addr.port}`);
        check(outcome, 78, new RegExp(`Listen on "127\\.0\\.0\\.1:${taken.addr.port}"`));
      } finally {
        taken.close();
      }
      assert.equal(primary.running, true);
    },
  );
});
