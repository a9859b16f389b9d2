/**
 * The demo as a newcomer runs it, judged by its last line; and that it leaves nothing behind, also when interrupted.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Role, runCommand } from "../../src/cli/demo/role.ts";
import { reportNoGo, stockKopia } from "../support/stock_kopia.ts";
import { klioCommand } from "./klio_process.ts";
import { judgeByKopia } from "./kopia_judge.ts";

const OPTIONS = { signal: new AbortController().signal };

interface DemoRun {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** What is left in the directory that was the demo's place for temporary files. */
  readonly left: readonly string[];
}

/** Runs `klio demo --json`; `interruptAfter` sends SIGTERM when standard error first has this text, `lookAt` sees what it kept. */
async function runDemo(
  interruptAfter?: string,
  lookAt?: (kept: string) => Promise<void>,
): Promise<DemoRun> {
  const temporary = await Deno.makeTempDir({ prefix: "klio-dt-" });
  try {
    await Deno.chmod(temporary, 0o755);
    const command = klioCommand();
    const child = new Deno.Command(command.program, {
      args: [...command.args, "demo", "--json", ...(lookAt === undefined ? [] : ["--keep"])],
      env: { ...command.env, TMPDIR: temporary },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    let stderr = "";
    let interrupted = false;
    const reading = (async () => {
      for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
        stderr += text;
        if (interruptAfter === undefined || interrupted || !stderr.includes(interruptAfter)) {
          continue;
        }
        interrupted = true;
        child.kill("SIGTERM");
      }
    })();
    const stdout = await new Response(child.stdout).text();
    await reading;
    const { code } = await child.status;
    const [kept] = await Array.fromAsync(Deno.readDir(temporary));
    if (lookAt !== undefined) {
      assert.ok(kept, stderr);
      await lookAt(`${temporary}/${kept.name}`);
    }
    return {
      code,
      stdout,
      stderr,
      left: (await Array.fromAsync(Deno.readDir(temporary))).map((entry) => entry.name),
    };
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

Deno.test("klio demo brings back every row and every acknowledged commit, and leaves nothing behind", async () => {
  const { code, stdout, stderr, left } = await runDemo();
  assert.equal(code, 0, stderr);
  const result = JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
  assert.equal(result.ok, true);
  assert.equal(result.pitr_rows_equal, true);
  assert.equal(result.lost_acked_commits, 0);
  assert.ok(result.acked_commits > 1000, `${result.acked_commits} commits`);
  for (
    const key of [
      "wal_bytes",
      "backup_bytes",
      "backup_seconds",
      "restore_seconds",
      "flush_lag_ms_p99",
    ]
  ) {
    assert.ok(result[key] > 0, `${key} is ${result[key]}`);
  }
  assert.match(result.pg_version, /^1[5-9]\./);
  assert.deepEqual(left, []);
});

Deno.test("stock kopia opens the repository that the demo wrote, verifies it, and restores the same files", async () => {
  const kopia = await stockKopia();
  if (kopia === undefined) return reportNoGo();
  const { code, stderr } = await runDemo(undefined, async (directory) => {
    const klio = klioCommand();
    await using server = new Role("server", klio, ["server", `--config=${directory}/server.yaml`]);
    const ready = await server.waitFor((line) => line["msg"] === "Server is ready", OPTIONS);
    const restored = `${directory}/judged`;
    const port = String(ready["base_address"]).split(":").at(-1);
    const where = [
      `--config=${directory}/client.yaml`,
      `--client-base-url=https://localhost:${port}`,
    ];
    await runCommand(klio, ["restore", restored, ...where], OPTIONS);
    await judgeByKopia({
      kopia,
      directory,
      restored,
      parts: ["controldata", "metadata", "pgdata"],
    });
  });
  assert.equal(code, 0, stderr);
});

Deno.test("klio demo interrupted in the middle exits with 143 and leaves nothing behind", async () => {
  const { code, stderr, left } = await runDemo("base backup while writing");
  assert.equal(code, 143, stderr);
  assert.deepEqual(left, []);
});
