import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { SYSTEM_CLOCK, SYSTEM_RANDOM } from "../../../src/adapters/process/clock.ts";
import { createDevCertificates } from "../../../src/adapters/x509/certificates.ts";
import { writeServerConfig } from "../../../src/cli/demo/config_files.ts";
import { Role } from "../../../src/cli/demo/role.ts";
import { klioCommand } from "../../e2e/klio_process.ts";
import { foreignWalClient, runForeignWalClient } from "../../support/foreign_wal_client.ts";
import { temporaryDirectory } from "../../support/postgres.ts";
import { reportNoGo } from "../../support/stock_kopia.ts";

const OPTIONS = { signal: new AbortController().signal };
const PROTO = fileURLToPath(new URL("../../../proto", import.meta.url));

/** The client signs certificates of clusters that it invents, so it gets the authority's key. */
async function writeCertificates(directory: string): Promise<void> {
  const made = createDevCertificates({
    cluster: "unused",
    user: "klio",
    nowMs: SYSTEM_CLOCK.nowMs(),
    validDays: 1,
  });
  await Deno.mkdir(directory);
  for (
    const [name, text] of [
      ["ca.crt", made.authority.certificatePem],
      ["ca.key", made.authority.keyPem],
      ["server.crt", made.server.certificatePem],
      ["server.key", made.server.keyPem],
    ] as const
  ) await Deno.writeTextFile(`${directory}/${name}`, text, { mode: 0o600 });
}

Deno.test("a foreign client of klio.wal.v1 finds what existing clients rely on", async (t) => {
  const client = await foreignWalClient();
  if (client === undefined) return reportNoGo();
  await using directory = await temporaryDirectory();
  const { path } = directory;
  await writeCertificates(`${path}/certs`);
  await writeServerConfig({ directory: path, random: SYSTEM_RANDOM });
  await using server = new Role("server", klioCommand(), [
    "server",
    `--config=${path}/server.yaml`,
  ]);
  const ready = await server.waitFor((line) => line["msg"] === "Server is ready", OPTIONS);
  const bugs: unknown[] = [];
  server.onLine((line) => line["level"] === "error" && bugs.push(line));
  const outcomes = await runForeignWalClient(client, [
    `--proto=${PROTO}`,
    `--address=${String(ready["wal_address"])}`,
    `--ca-cert=${path}/certs/ca.crt`,
    `--ca-key=${path}/certs/ca.key`,
  ]);
  assert.ok(outcomes.length >= 25, `${outcomes.length} cases were run`);
  for (const { case: name, failure } of outcomes) {
    await t.step(name, () => assert.equal(failure, undefined));
  }
  await t.step("the server met no bug of its own", () => {
    const unexpected = bugs.filter((line) =>
      !JSON.stringify(line).includes("WAL is missing: recorded a gap")
    );
    assert.deepEqual(unexpected, []);
  });
  await t.step("the server stops in good order afterwards", async () => {
    assert.equal(await server.stop(OPTIONS), 0);
  });
});
