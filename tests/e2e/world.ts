/**
 * A whole small world of real processes for end-to-end tests: Klio server, PostgreSQL, streamer, configuration files and
 * certificates in one temporary directory, gone when the test ends.
 *
 * @module
 */

import { SYSTEM_CLOCK, SYSTEM_RANDOM } from "../../src/adapters/process/clock.ts";
import type { OwnCommand } from "../../src/adapters/process/self.ts";
import { accountToRunAs, LocalCluster } from "../../src/adapters/postgres/local_cluster.ts";
import { writeClientConfig, writeServerConfig } from "../../src/cli/demo/config_files.ts";
import { Role, runCommand } from "../../src/cli/demo/role.ts";
import { stageForAccount } from "../../src/cli/demo/staging.ts";
import type { SqlConnection } from "../../src/adapters/postgres/sql_connection.ts";
import { temporaryDirectory, testPostgres } from "../support/postgres.ts";
import { klioCommand } from "./klio_process.ts";

/** Name of the cluster in the client certificate. */
export const CLUSTER = "world";

/** See the module comment. */
export interface World extends AsyncDisposable {
  readonly directory: string;
  readonly primary: LocalCluster;
  readonly sql: SqlConnection;
  readonly server: Role;
  readonly streamer: Role;
  /** Runs klio with the client's configuration; standard output. Throws when it fails. */
  run(...words: string[]): Promise<string>;
  /** `klio` for processes that PostgreSQL's account starts. */
  readonly klio: OwnCommand;
}

/** Starts everything and waits until WAL is streaming. */
export async function startWorld(
  options: {
    readonly signal: AbortSignal;
    readonly settings?: Readonly<Record<string, string>>;
    readonly segmentSizeBytes?: number;
  },
): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory()).path;
  const klio = await stageForAccount(
    await accountToRunAs(),
    `${directory}/klio`,
    options,
    klioCommand(),
  );
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
  const primary = stack.use(
    await LocalCluster.create({
      ...options,
      clock: SYSTEM_CLOCK,
      random: SYSTEM_RANDOM,
      binaries: await testPostgres(options),
      directory: `${directory}/primary`,
    }),
  );
  await primary.start(options);
  await writeClientConfig({
    directory,
    cluster: CLUSTER,
    server: { base: String(ready["base_address"]), wal: String(ready["wal_address"]) },
    primary,
  });
  const config = `--config=${directory}/client.yaml`;
  const streamer = stack.use(new Role("stream-wal", klio, ["stream-wal", config]));
  await streamer.waitFor((line) => line["msg"] === "Streaming WAL", options);
  const sql = stack.use(await primary.connect(options));
  const owned = stack.move();
  return {
    directory,
    primary,
    sql,
    server,
    streamer,
    klio,
    run: (...words) => runCommand(klio, [...words, config], options),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Adopts the data directory in `<home>/data` and starts it; recovery has ended when this resolves. */
export async function startRestored(
  home: string,
  options: { readonly signal: AbortSignal },
): Promise<LocalCluster> {
  const cluster = await LocalCluster.adopt({
    ...options,
    clock: SYSTEM_CLOCK,
    random: SYSTEM_RANDOM,
    binaries: await testPostgres(options),
    directory: home,
    settings: { synchronous_standby_names: "" },
  });
  await cluster.start({ ...options, until: "primary" });
  return cluster;
}
