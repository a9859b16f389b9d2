/**
 * A throw-away PostgreSQL cluster on this machine, for `klio demo` and for tests: initdb (or an existing, for instance
 * restored, data directory), start, stop, kill, restart. Listens on a free port of 127.0.0.1 and on a UNIX socket.
 * PostgreSQL refuses to run as root, so root hands the directories to another user. Disposing ends every process that was
 * started, by its id; the directory stays and belongs to the caller. Needs `initdb` and `postgres` only.
 *
 * @module
 */

import { abortable, deadline, type Waiting } from "../../base/abort.ts";
import { assert } from "../../base/assert.ts";
import type { Clock, Random } from "../../base/clock.ts";
import { AppError, isKind } from "../../base/failure.ts";
import {
  type ConnectionSettings,
  formatConnectionString,
  parseConnectionString,
} from "./conninfo.ts";
import type { PostgresBinaries } from "./postgres_binaries.ts";
import { SqlConnection } from "./sql_connection.ts";

/** The account that PostgreSQL runs as. */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** What a local cluster needs. */
export interface LocalClusterOptions {
  readonly binaries: PostgresBinaries;
  /** Holds `data`, `socket` and `postgresql.log`; created when absent. At most about 80 characters (socket paths are short). */
  readonly directory: string;
  readonly clock: Clock;
  readonly random: Random;
  /** Default `postgres`. */
  readonly superuser?: string;
  /** For initdb; default 16 MiB. */
  readonly segmentSizeBytes?: number;
  /** Server settings, on top of the ones that make it reachable. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** What {@link LocalCluster.start} waits for. */
export type StartedState =
  /** Connections are accepted, on a standby or in recovery read-only ones. */
  | "accepting"
  /** Recovery, if any, has ended and the cluster is a primary. */
  | "primary";

const START_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 60_000;
const POLL_MS = 20;
/** Below the ports that systems give to outgoing connections, so that none of those takes it in between. */
const PORT_MIN = 20_000;
const PORT_MAX = 32_000;
const SIGNALS = { fast: "SIGINT", immediate: "SIGQUIT" } as const;

/** See the module comment. */
export class LocalCluster implements AsyncDisposable {
  readonly dataDirectory: string;
  readonly socketDirectory: string;
  readonly logFile: string;
  readonly superuser: string;
  readonly port: number;
  readonly account: Account | undefined;
  readonly #options: LocalClusterOptions;
  #process: Deno.ChildProcess | undefined;

  /** Use {@link LocalCluster.create} or {@link LocalCluster.adopt}. */
  constructor(options: LocalClusterOptions, port: number, account: Account | undefined) {
    this.#options = options;
    this.dataDirectory = `${options.directory}/data`;
    this.socketDirectory = `${options.directory}/socket`;
    this.logFile = `${options.directory}/postgresql.log`;
    this.superuser = options.superuser ?? "postgres";
    this.port = port;
    this.account = account;
  }

  /** A new cluster: data checksums on, trust authentication, replication allowed. Not started yet. */
  static async create(options: LocalClusterOptions & Waiting): Promise<LocalCluster> {
    const cluster = await LocalCluster.#prepare(options);
    await cluster.#initialise(options);
    return cluster;
  }

  /**
   * A cluster over the data directory that already stands in `<directory>/data`, for instance a restored one. Its
   * settings are kept; address, port and `settings` are given on the command line and win.
   */
  static async adopt(options: LocalClusterOptions & Waiting): Promise<LocalCluster> {
    const cluster = await LocalCluster.#prepare(options);
    if (cluster.account !== undefined) {
      await run("chown", [
        "-R",
        `${cluster.account.uid}:${cluster.account.gid}`,
        cluster.dataDirectory,
      ], options);
    }
    await Deno.chmod(cluster.dataDirectory, 0o700);
    return cluster;
  }

  static async #prepare(options: LocalClusterOptions & Waiting): Promise<LocalCluster> {
    assert(options.directory.startsWith("/"), "the directory of a local cluster is absolute");
    const account = await accountToRunAs();
    const cluster = new LocalCluster(options, freePort(options.random), account);
    await Deno.mkdir(cluster.socketDirectory, { recursive: true });
    if (account !== undefined) {
      await Deno.chown(options.directory, account.uid, account.gid);
      await Deno.chown(cluster.socketDirectory, account.uid, account.gid);
      await checkTraversable(options.directory, account);
    }
    return cluster;
  }

  async #initialise(options: Waiting): Promise<void> {
    const { binaries, segmentSizeBytes } = this.#options;
    await run(
      `${binaries.directory}/initdb`,
      [
        `--pgdata=${this.dataDirectory}`,
        `--username=${this.superuser}`,
        "--auth=trust",
        "--data-checksums",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync", // throw-away: PostgreSQL itself still fsyncs all it commits
        ...(segmentSizeBytes === undefined ? [] : [`--wal-segsize=${segmentSizeBytes / 2 ** 20}`]),
      ],
      options,
      this.#childOptions(),
    );
  }

  /** Settings of a connection as superuser: over TCP by default, or over the UNIX socket. */
  connectionSettings(over: "tcp" | "socket" = "tcp"): ConnectionSettings {
    return parseConnectionString(this.connectionString(over));
  }

  /** The same as a connection string. */
  connectionString(over: "tcp" | "socket" = "tcp"): string {
    return formatConnectionString({
      host: over === "tcp" ? "127.0.0.1" : this.socketDirectory,
      port: this.port,
      user: this.superuser,
      database: "postgres",
    });
  }

  /** A new SQL connection as superuser, over TCP unless told. */
  connect(options: Waiting & { readonly over?: "tcp" | "socket" }): Promise<SqlConnection> {
    return SqlConnection.open(this.connectionSettings(options.over), options);
  }

  /** True while the postmaster runs. */
  get running(): boolean {
    return this.#process !== undefined;
  }

  /** Process id of the postmaster; undefined when it does not run. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Starts PostgreSQL and waits. Throws `source` with the end of its log when it does not come up. */
  async start(options: Waiting & { readonly until?: StartedState }): Promise<void> {
    assert(this.#process === undefined, "a local cluster is started once at a time");
    options.signal.throwIfAborted();
    const settings = {
      listen_addresses: "127.0.0.1",
      port: String(this.port),
      unix_socket_directories: this.socketDirectory,
      ...this.#options.settings,
    };
    const child = new Deno.Command("/bin/sh", {
      // exec keeps the process id; the shell is here for the redirection only.
      args: [
        "-c",
        'exec "$@" >>"$0" 2>&1',
        this.logFile,
        `${this.#options.binaries.directory}/postgres`,
        "-D",
        this.dataDirectory,
        ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
      ],
      stdin: "null",
      stdout: "null",
      stderr: "null",
      ...this.#childOptions(),
    }).spawn();
    this.#process = child;
    let exited = false;
    void child.status.then(() => { // ChildProcess.status never rejects
      exited = true;
      if (this.#process === child) this.#process = undefined;
    });
    using limit = deadline({
      signal: options.signal,
      timeoutMs: START_TIMEOUT_MS,
      what: "Start PostgreSQL",
    });
    try {
      while (!await this.#hasReached(options.until ?? "accepting", child.pid, limit)) {
        if (exited) throw await this.#startFailure();
        await this.#options.clock.sleep(POLL_MS, limit);
      }
    } catch (error) {
      await this.kill();
      throw error;
    }
  }

  /**
   * The eighth line of postmaster.pid tells what pg_ctl looks at, too. It says `ready` as soon as a recovery accepts
   * read-only connections, so whether recovery has ended must be asked.
   */
  async #hasReached(state: StartedState, pid: number, options: Waiting): Promise<boolean> {
    let text: string;
    try {
      text = await Deno.readTextFile(`${this.dataDirectory}/postmaster.pid`);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }
    const lines = text.split("\n");
    if (Number(lines[0]) !== pid) return false; // left behind by a killed one
    const status = (lines[7] ?? "").trim();
    if (state === "accepting") return status === "ready" || status === "standby";
    return status === "ready" && await this.#recoveryHasEnded(options);
  }

  async #recoveryHasEnded(options: Waiting): Promise<boolean> {
    try {
      await using connection = await this.connect(options);
      const [row] = await connection.query("SELECT pg_is_in_recovery() AS recovering", options);
      return row?.["recovering"] === false;
    } catch (error) {
      if (isKind(error, "source")) return false; // it has just stopped, which the process tells
      throw error;
    }
  }

  async #startFailure(): Promise<AppError> {
    const log = await Deno.readTextFile(this.logFile).catch(() => "");
    const tail = log.trimEnd().split("\n").slice(-5).join(" | ");
    return new AppError(
      "source",
      `Start PostgreSQL in "${this.dataDirectory}": it exited: ${tail}`,
    );
  }

  /** Stops in good order (`fast`, with a shutdown checkpoint) or at once (`immediate`); stopped already is success. */
  async stop(options: Waiting & { readonly mode?: "fast" | "immediate" }): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    signalProcess(child, SIGNALS[options.mode ?? "fast"]);
    using limit = deadline({
      signal: options.signal,
      timeoutMs: STOP_TIMEOUT_MS,
      what: "Stop PostgreSQL",
    });
    await abortable(child.status, limit);
    this.#process = undefined;
  }

  /** SIGKILL for the postmaster and all its children, as in a crash of the machine; never throws. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    // Orphans would hold the shared memory until they notice: the next start would be refused.
    const children = await childrenOf(child.pid);
    signalProcess(child, "SIGKILL");
    for (const pid of children) killIfThere(pid);
    await child.status;
    this.#process = undefined;
  }

  /** Stops and starts again. */
  async restart(options: Waiting & { readonly mode?: "fast" | "immediate" }): Promise<void> {
    await this.stop(options);
    await this.start(options);
  }

  /** Ends what runs; the fastest way, since nobody needs the cluster any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  #childOptions(): Deno.CommandOptions {
    return {
      cwd: this.#options.directory,
      clearEnv: true, // PG* variables of the caller must not lead astray
      env: { PATH: "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" },
      ...(this.account === undefined ? {} : { uid: this.account.uid, gid: this.account.gid }),
    };
  }
}

/** For root, the user `postgres` if there is one, else `nobody`; for others undefined: as themselves. */
export async function accountToRunAs(): Promise<Account | undefined> {
  if (Deno.uid() !== 0) return undefined;
  const lines = (await Deno.readTextFile("/etc/passwd")).split("\n");
  for (const wanted of ["postgres", "nobody"]) {
    for (const line of lines) {
      const [name, , uid, gid] = line.split(":");
      if (name === wanted) return { name, uid: Number(uid), gid: Number(gid) };
    }
  }
  throw new AppError("config", "Run PostgreSQL as root: there is no user postgres or nobody", {
    hint: "run as an ordinary user, or create the user postgres",
  });
}

/** PostgreSQL must be able to walk down to its data; a directory made by mkdtemp keeps everybody else out. */
async function checkTraversable(directory: string, account: Account): Promise<void> {
  for (let path = directory; path !== ""; path = path.slice(0, path.lastIndexOf("/"))) {
    const info = await Deno.stat(path);
    const mode = info.mode ?? 0;
    const open = (mode & 0o001) !== 0 || (info.uid === account.uid && (mode & 0o100) !== 0);
    if (!open) {
      throw new AppError(
        "permission",
        `Run PostgreSQL in "${directory}": user "${account.name}" may not enter "${path}"`,
        { hint: `chmod 711 ${path}` },
      );
    }
  }
}

function freePort(random: Random): number {
  const TRIES_MAX = 100;
  for (let attempt = 0; attempt < TRIES_MAX; attempt++) {
    const port = PORT_MIN + Math.floor(random.float() * (PORT_MAX - PORT_MIN));
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
  throw new AppError("exhausted", `Find a free port: ${TRIES_MAX} tries failed`);
}

async function run(
  program: string,
  args: readonly string[],
  options: Waiting,
  child: Deno.CommandOptions = {},
): Promise<void> {
  options.signal.throwIfAborted();
  const result = await new Deno.Command(program, {
    ...child,
    args: [...args],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    signal: options.signal,
  }).output();
  options.signal.throwIfAborted();
  if (!result.success) {
    const text = new TextDecoder().decode(result.stderr).trim();
    throw new AppError("source", `Run "${program}": exit code ${result.code}: ${text}`);
  }
}

function signalProcess(child: Deno.ChildProcess, signal: Deno.Signal): void {
  try {
    child.kill(signal);
  } catch (error) {
    // It has just ended by itself: `status` tells.
    if (!(error instanceof TypeError) && !(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function killIfThere(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Direct children of a process (a postmaster has no deeper ones); empty where the system does not tell. */
async function childrenOf(pid: number): Promise<readonly number[]> {
  try {
    const text = await Deno.readTextFile(`/proc/${pid}/task/${pid}/children`);
    return text.trim().split(" ").filter((t) => t !== "").map(Number);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
