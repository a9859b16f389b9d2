/**
 * The stage of crash and failover tests: processes that are killed, frozen and brought back at will. Unlike `world.ts`,
 * the server has fixed ports, so that it can come back where its clients expect it, and there may be several
 * PostgreSQL clusters and streamers. Everything that was started is ended, by its own pid, when the stage is disposed.
 *
 * @module
 */

import assert from "node:assert/strict";
import { SYSTEM_CLOCK, SYSTEM_RANDOM } from "../../src/adapters/process/clock.ts";
import type { OwnCommand } from "../../src/adapters/process/self.ts";
import {
  accountToRunAs,
  LocalCluster,
  type LocalClusterOptions,
} from "../../src/adapters/postgres/local_cluster.ts";
import type { PostgresBinaries } from "../../src/adapters/postgres/postgres_binaries.ts";
import { deadline, type Waiting } from "../../src/base/abort.ts";
import { writeClientConfig, writeServerConfig } from "../../src/cli/demo/config_files.ts";
import { type LogLine, Role, runCommand } from "../../src/cli/demo/role.ts";
import { stageForAccount } from "../../src/cli/demo/staging.ts";
import { type PostgresChoice, temporaryDirectory, testPostgres } from "../support/postgres.ts";
import { twoFreePorts } from "../support/free_ports.ts";
import { klioCommand } from "./klio_process.ts";

/** Name of the cluster in the client certificate. */
export const CLUSTER = "stage";

/** Nothing that a stage waits for takes this long; what does has failed. */
const WAIT_TIMEOUT_MS = 90_000;
const POLL_MS = 20;
const LAST_LINES_MAX = 50;

/** What a cluster on a stage may be given. */
export type StageClusterOptions = Partial<
  Pick<LocalClusterOptions, "segmentSizeBytes" | "settings">
>;

/** See the module comment. */
export class Stage {
  readonly directory: string;
  /** `klio` for processes that PostgreSQL's account starts. */
  readonly klio: OwnCommand;
  readonly #options: Waiting;
  readonly #binaries: PostgresBinaries;
  readonly #ports: { readonly base: number; readonly wal: number };
  readonly #owned: AsyncDisposableStack;
  /** Of all roles, for the one who looks for the cause of a failure. */
  readonly #lastLines: LogLine[] = [];

  private constructor(
    fields: { directory: string; klio: OwnCommand; binaries: PostgresBinaries },
    owned: AsyncDisposableStack,
    options: Waiting,
  ) {
    this.directory = fields.directory;
    this.klio = fields.klio;
    this.#binaries = fields.binaries;
    const [base, wal] = twoFreePorts(SYSTEM_RANDOM);
    this.#ports = { base, wal };
    this.#owned = owned;
    this.#options = options;
  }

  /** Certificates, configuration and a primary that runs; no klio process yet. */
  static async open(
    options: PostgresChoice & StageClusterOptions,
  ): Promise<{ readonly stage: Stage; readonly primary: LocalCluster } & AsyncDisposable> {
    await using stack = new AsyncDisposableStack();
    const directory = stack.use(await temporaryDirectory()).path;
    const klio = await stageForAccount(
      await accountToRunAs(),
      `${directory}/klio`,
      options,
      klioCommand(),
    );
    const binaries = await testPostgres(options);
    const owned = stack.use(new AsyncDisposableStack());
    const stage = new Stage({ directory, klio, binaries }, owned, options);
    await runCommand(
      klio,
      ["dev", "certs", "--dir", `${directory}/certs`, "--cluster", CLUSTER],
      options,
    );
    await writeServerConfig({ directory, random: SYSTEM_RANDOM });
    const primary = await stage.#cluster("create", "primary", options);
    await primary.start(options);
    const { base, wal } = stage.#ports;
    await writeClientConfig({
      directory,
      cluster: CLUSTER,
      server: { base: `127.0.0.1:${base}`, wal: `127.0.0.1:${wal}` },
      primary,
    });
    const all = stack.move();
    return { stage, primary, [Symbol.asyncDispose]: () => all.disposeAsync() };
  }

  /** `klio server` on the directories and ports of this stage; resolves when it is ready. */
  async startServer(): Promise<Role> {
    const server = this.#start("server", [
      `--config=${this.directory}/server.yaml`,
      `--tier1-base-listen-address=127.0.0.1:${this.#ports.base}`,
      `--tier1-wal-listen-address=127.0.0.1:${this.#ports.wal}`,
    ]);
    await this.waitFor(server, "Server is ready");
    return server;
  }

  /** `klio stream-wal` at this cluster; resolves at once. */
  startStreamer(source: LocalCluster): Role {
    return this.#start("stream-wal", [this.#config, ...this.#source(source)]);
  }

  #start(command: string, flags: readonly string[]): Role {
    const role = this.#owned.use(new Role(command, this.klio, [command, ...flags]));
    role.onLine((line) => {
      this.#lastLines.push({ role: command, pid: role.pid, ...line });
      if (this.#lastLines.length > LAST_LINES_MAX) this.#lastLines.shift();
    });
    return role;
  }

  /** The line of a role's log with this message, past or future. */
  async waitFor(role: Role, message: string): Promise<LogLine> {
    return await this.within(
      `See "${message}"`,
      (options) => role.waitFor((line) => line["msg"] === message, options),
    );
  }

  /** SIGTERM, then waits for the end; the exit code. */
  async stop(role: Role): Promise<number> {
    return await this.within(`Stop ${role.name}`, (options) => role.stop(options));
  }

  /** Runs a command of klio that needs no PostgreSQL; standard output. Throws when it fails. */
  async run(...words: readonly string[]): Promise<string> {
    return await this.within(
      `Run klio ${words[0]}`,
      (options) => runCommand(this.klio, [...words, this.#config], options),
    );
  }

  /** Takes a base backup of this cluster. */
  async backup(source: LocalCluster, name: string): Promise<void> {
    await this.run("backup", "run", "--name", name, ...this.#source(source));
  }

  /** Restores from the archive alone into a cluster of its own, which is not started. `flags` choose backup and target. */
  async restore(
    name: string,
    options: { readonly flags?: readonly string[]; readonly settings?: Record<string, string> } =
      {},
  ): Promise<LocalCluster> {
    const home = `${this.directory}/${name}`;
    await Deno.mkdir(home);
    await this.run("restore", `${home}/data`, ...options.flags ?? []);
    const settings = { synchronous_standby_names: "", ...options.settings };
    return await this.#cluster("adopt", name, { settings });
  }

  /** Like {@link restore}, recovered and a primary; `use` it, then it is gone with its files. */
  async restored<T>(
    name: string,
    flags: readonly string[],
    use: (cluster: LocalCluster) => Promise<T>,
  ): Promise<T> {
    const cluster = await this.restore(name, { flags });
    await cluster.start({ ...this.#options, until: "primary" });
    const result = await use(cluster);
    await cluster.kill();
    await Deno.remove(`${this.directory}/${name}`, { recursive: true });
    return result;
  }

  /** A running standby of `upstream`, made from the archive. */
  async startStandby(
    name: string,
    upstream: LocalCluster,
    options: { readonly settings?: Record<string, string> } = {},
  ): Promise<LocalCluster> {
    const cluster = await this.restore(name, {
      settings: {
        primary_conninfo: upstream.connectionString("tcp"),
        wal_retrieve_retry_interval: "100ms",
        ...options.settings,
      },
    });
    await Deno.rename(
      `${cluster.dataDirectory}/recovery.signal`,
      `${cluster.dataDirectory}/standby.signal`,
    );
    await cluster.start(this.#options);
    return cluster;
  }

  /** Polls until `condition` holds: for states of PostgreSQL, which tells no other way. */
  async until(what: string, condition: () => Promise<boolean> | boolean): Promise<void> {
    await this.within(what, async (options) => {
      while (!await condition()) await SYSTEM_CLOCK.sleep(POLL_MS, options);
    });
  }

  /** Runs `work` with a deadline that tells what was waited for. */
  async within<T>(what: string, work: (options: Waiting) => Promise<T>): Promise<T> {
    using limit = deadline({ ...this.#options, timeoutMs: WAIT_TIMEOUT_MS, what });
    try {
      return await work(limit);
    } catch (error) {
      if (limit.signal.aborted) {
        for (const line of this.#lastLines) console.log(JSON.stringify(line));
      }
      throw error;
    }
  }

  get #config(): string {
    return `--config=${this.directory}/client.yaml`;
  }

  #source(source: LocalCluster): readonly string[] {
    return [
      `--source-dsn=${source.connectionString("socket")}`,
      `--source-standard-dsn=${source.connectionString("tcp")}`,
    ];
  }

  async #cluster(
    how: "create" | "adopt",
    name: string,
    options: StageClusterOptions,
  ): Promise<LocalCluster> {
    assert.match(name, /^[a-z0-9-]+$/);
    return this.#owned.use(
      await LocalCluster[how]({
        ...options,
        ...this.#options,
        clock: SYSTEM_CLOCK,
        random: SYSTEM_RANDOM,
        binaries: this.#binaries,
        directory: `${this.directory}/${name}`,
      }),
    );
  }
}
