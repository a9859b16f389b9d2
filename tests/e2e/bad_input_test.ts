/**
 * Every bad input of a command line, a configuration, a certificate and a set-up: a clear error, the documented exit code,
 * and nothing left behind. Real processes throughout.
 *
 * @module
 */

import assert from "node:assert/strict";
import { klio, type Outcome } from "./klio_process.ts";

async function temporary(): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir({ prefix: "klio-bad-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

function check(outcome: Outcome, code: number, message: RegExp, hint?: RegExp): void {
  // Before the configuration is read the error is text for a person, after it a line of the log.
  assert.match(String(outcome.last["error"] ?? outcome.stderr), message);
  if (hint !== undefined) assert.match(String(outcome.last["hint"] ?? outcome.stderr), hint);
  assert.equal(outcome.code, code, outcome.stderr);
  assert.equal(outcome.stdout, "");
}

Deno.test("klio refuses an unknown command, group member, option and argument with exit code 64", async () => {
  const [command, member, option, argument, valueless] = await Promise.all([
    klio(["backupp", "run"]),
    klio(["backup", "rnu"]),
    klio(["backup", "list", "--jsno"]),
    klio(["backup", "list", "extra"]),
    klio(["backup", "run", "--name"]),
  ]);
  check(command, 64, /Run "klio backupp": unknown command/, /commands: .*backup run/);
  check(
    member,
    64,
    /Run "klio backup rnu": unknown command/,
    /commands: backup run, backup list, backup show/,
  );
  check(option, 64, /unknown option "--jsno"/, /klio backup list --help/);
  check(argument, 64, /unexpected argument "extra"/);
  check(valueless, 64, /option "--name" needs a value NAME/);
});

Deno.test("klio refuses a configuration that is missing, not YAML, unknown in a key or wrong in type with exit code 78", async () => {
  await using directory = await temporary();
  const file = async (name: string, text: string) => {
    await Deno.writeTextFile(`${directory.path}/${name}`, text);
    return `--config=${directory.path}/${name}`;
  };
  const files = ["server-cert", "client-cert", "client-key"];
  const [missing, notYaml, unknown, wrongType, incomplete, contradictory] = await Promise.all([
    klio(["server", `--config=${directory.path}/absent.yaml`]),
    klio(["server", await file("a.yaml", "tls: [")]),
    klio(["server", await file("b.yaml", "tls:\n  certificate: x\n")]),
    klio([
      "stream-wal",
      await file("c.yaml", "source:\n  standby_message_timeout_seconds: often\n"),
    ]),
    klio(["server", "--config=/dev/null"]),
    klio([
      "stream-wal",
      ...[
        "--client-cluster-name=c",
        "--client-wal-address=h:1",
        "--source-slot-release=over_budget",
      ],
      ...files.map((name) => `--client-wal-${name}-path=x`),
    ]),
  ]);
  check(contradictory, 78, /slot_release is over_budget, wanted source\.slot_wal_budget_bytes/);
  check(missing, 78, /absent\.yaml.*no such file/, /--config/);
  check(notYaml, 78, /a\.yaml.*not YAML/);
  check(unknown, 78, /tls\.certificate .*unknown key/);
  check(
    wrongType,
    78,
    /source\.standby_message_timeout_seconds .*wanted an integer from 0 to 3600, saw .*often/,
  );
  check(
    incomplete,
    78,
    /tier1\.encryption_key_file: missing, set it with --tier1-encryption-key-file, KLIO_TIER1_ENCRYPTION_KEY_FILE/,
  );
});

Deno.test("klio --help and --version answer on standard output with exit code 0", async () => {
  const [help, version, command, group] = await Promise.all([
    klio(["--help"]),
    klio(["--version"]),
    klio(["restore", "--help"]),
    klio(["backup", "--help"]),
  ]);
  assert.match(help.stdout, /stream-wal .*[\s\S]*Exit codes:[\s\S]* 68 /);
  assert.match(version.stdout, /^klio \d+\.\d+\.\d+ \(Deno /);
  assert.match(
    command.stdout,
    /Usage: klio restore DIRECTORY \[OPTIONS\][\s\S]*--target-time TIME[\s\S]*Examples:/,
  );
  assert.match(group.stdout, /backup run[\s\S]*backup list[\s\S]*backup show/);
  for (const outcome of [help, version, command, group]) assert.equal(outcome.code, 0);
});

Deno.test("klio dev certs refuses bad names and never overwrites", async () => {
  await using directory = await temporary();
  const dir = `${directory.path}/certs`;
  const [badCluster, badDays] = await Promise.all([
    klio(["dev", "certs", "--dir", dir, "--cluster", "../x"]),
    klio(["dev", "certs", "--dir", dir, "--cluster", "x", "--days", "0"]),
  ]);
  check(badCluster, 64, /cluster name "\.\.\/x"/);
  check(badDays, 64, /--days "0": wanted a whole number from 1 to 3650/);
  await assert.rejects(Deno.stat(dir), Deno.errors.NotFound);
  assert.equal((await klio(["dev", "certs", "--dir", dir, "--cluster", "x"])).code, 0);
  const key = await Deno.readTextFile(`${dir}/client.key`);
  assert.equal(((await Deno.stat(`${dir}/client.key`)).mode ?? 0) & 0o777, 0o600);
  check(
    await klio(["dev", "certs", "--dir", dir, "--cluster", "x"]),
    75,
    /"ca\.crt" exists already/,
  );
  assert.equal(await Deno.readTextFile(`${dir}/client.key`), key);
});
