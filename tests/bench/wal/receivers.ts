/**
 * The two that receive WAL: klio (server and streamer, each a real process with its own directory, mutual TLS between
 * them) and `pg_receivewal` with its defaults.
 *
 * @module
 */

import type { Waiting } from "../../../src/base/abort.ts";
import type { LocalCluster } from "../../../src/adapters/postgres/local_cluster.ts";
import type { OwnCommand } from "../../../src/adapters/process/self.ts";
import { SYSTEM_RANDOM } from "../../../src/adapters/process/clock.ts";
import { writeClientConfig, writeServerConfig } from "../../../src/cli/demo/config_files.ts";
import { Role, runCommand } from "../../../src/cli/demo/role.ts";

const CLUSTER = "bench";

/** A running klio. */
export interface Klio extends AsyncDisposable {
  readonly serverPid: number;
  readonly streamerPid: number;
  /** Both drain and end, the streamer first. */
  stop(options: Waiting): Promise<void>;
}

/** Starts the server, then a streamer that may not have connected yet. A slot that does not exist begins at the current position. */
export async function startKlio(
  request: { readonly klio: OwnCommand; readonly directory: string; readonly slot: string },
  cluster: LocalCluster,
  options: Waiting,
): Promise<Klio> {
  const { directory, klio, slot } = request;
  await using stack = new AsyncDisposableStack();
  await Deno.mkdir(directory);
  stack.defer(() => Deno.remove(directory, { recursive: true }));
  await runCommand(
    klio,
    ["dev", "certs", "--dir", `${directory}/certs`, "--cluster", CLUSTER],
    options,
  );
  await writeServerConfig({ directory, random: SYSTEM_RANDOM });
  const server = stack.use(
    new Role("server", klio, ["server", `--config=${directory}/server.yaml`]),
  );
  const ready = await server.waitFor((line) => line["msg"] === "Server is ready", options);
  await writeClientConfig({
    directory,
    cluster: CLUSTER,
    server: { base: String(ready["base_address"]), wal: String(ready["wal_address"]) },
    primary: cluster,
  });
  const words = ["stream-wal", `--config=${directory}/client.yaml`, `--source-slot=${slot}`];
  const streamer = stack.use(new Role("stream-wal", klio, words));
  const owned = stack.move();
  return {
    serverPid: server.pid,
    streamerPid: streamer.pid,
    async stop(waiting) {
      for (const role of [streamer, server]) {
        const code = await role.stop(waiting);
        if (code !== 0) throw new Error(`klio ${role.name} ended with exit code ${code}`);
      }
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** A running `pg_receivewal`. */
export interface PgReceivewal extends AsyncDisposable {
  readonly pid: number;
  /** True when the segment is there, complete: it is fsynced before and after it gets its name. */
  has(segment: string): Promise<boolean>;
}

/** Starts it at a slot that exists. */
export async function startPgReceivewal(
  request: { readonly program: string; readonly directory: string; readonly slot: string },
  cluster: LocalCluster,
): Promise<PgReceivewal> {
  const { directory, program, slot } = request;
  await Deno.mkdir(directory);
  const { account } = cluster;
  if (account !== undefined) await Deno.chown(directory, account.uid, account.gid);
  const child = new Deno.Command(program, {
    args: [
      `--directory=${directory}`,
      `--slot=${slot}`,
      "--no-loop",
      `--dbname=${cluster.connectionString("socket")}`,
    ],
    clearEnv: true,
    env: { PATH: "/usr/bin:/bin", LC_ALL: "C" },
    ...(account === undefined ? {} : { uid: account.uid, gid: account.gid }),
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  let ended = false;
  const status = child.status.then(() => {
    ended = true;
  });
  return {
    pid: child.pid,
    async has(segment) {
      if (ended) throw new Error("pg_receivewal has ended by itself");
      try {
        await Deno.stat(`${directory}/${segment}`);
        return true;
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) return false;
        throw error;
      }
    },
    async [Symbol.asyncDispose]() {
      if (!ended) child.kill("SIGTERM");
      await status;
      await Deno.remove(directory, { recursive: true });
    },
  };
}
