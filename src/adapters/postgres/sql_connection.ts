/**
 * An SQL connection over `pg`. `pg` does start-up, authentication and queries; the socket is ours (see `socket.ts`), so
 * that an abort closes it at once and a replication session can take it over.
 *
 * @module
 */

import pg from "pg";
import type { Socket } from "node:net";
import { abortable, deadline, type Waiting } from "../../base/abort.ts";
import { AppError } from "../../base/failure.ts";
import { APPLICATION_NAME } from "../../domain/names.ts";
import type { ConnectionSettings } from "./conninfo.ts";
import { MAJOR_VERSION_MIN, translate } from "./errors.ts";
import { openSocket } from "./socket.ts";

/** A row: PostgreSQL's text values as `pg` maps them (int8 and numeric stay text). */
export type Row = Readonly<Record<string, unknown>>;

/** What klio uses of `pg.Client`; the package brings no types of its own. */
interface PgClient {
  readonly connection: {
    on(event: "parameterStatus", listener: (message: ParameterStatus) => void): void;
  };
  connect(): Promise<unknown>;
  query(text: string, values: unknown[]): Promise<{ readonly rows: Row[] }>;
  on(event: "error", listener: (error: unknown) => void): void;
}

interface ParameterStatus {
  readonly parameterName: string;
  readonly parameterValue: string;
}

/** A connection past ReadyForQuery. */
export interface StartedConnection {
  readonly client: PgClient;
  readonly socket: Socket;
  /** For example 170002. */
  readonly serverVersion: number;
}

/** Connects and authenticates. Throws `source`, `permission`, `config` with hints; aborted, it leaves nothing open. */
export async function startConnection(
  settings: ConnectionSettings,
  options: Waiting & { readonly replication: boolean },
): Promise<StartedConnection> {
  let socket: Socket | undefined;
  try {
    const opened = await openSocket(settings, options);
    socket = opened;
    // `pg` wants to connect the socket itself: tell it that this has happened.
    opened.connect = () => {
      queueMicrotask(() => {
        opened.emit("connect");
        opened.resume(); // paused after the answer to SSLRequest
      });
      return opened;
    };
    let version = "";
    const client: PgClient = new pg.Client({
      stream: opened,
      ssl: false,
      host: settings.host,
      port: settings.port,
      user: settings.user,
      database: settings.database,
      password: settings.password,
      application_name: settings.applicationName ?? APPLICATION_NAME,
      ...(options.replication ? { replication: "true" } : {}),
    });
    client.on(
      "error",
      () => {/* also rejects the query in flight; the next one fails by itself */},
    );
    client.connection.on("parameterStatus", (message) => {
      if (message.parameterName === "server_version") version = message.parameterValue;
    });
    using limit = deadline({
      signal: options.signal,
      timeoutMs: settings.connectTimeoutMs,
      what: "Log in to PostgreSQL",
    });
    await abortable(client.connect(), limit);
    return { client, socket, serverVersion: checkVersion(version) };
  } catch (error) {
    socket?.destroy();
    throw translate(error, "Connect to PostgreSQL", settings);
  }
}

/** `15.13 (Debian …)` or `18beta1` as 150013 or 180000. Throws `source` for a server that is too old. */
export function checkVersion(text: string): number {
  const match = /^(\d+)(?:\.(\d+))?/.exec(text);
  const major = Number(match?.[1] ?? 0);
  if (major < MAJOR_VERSION_MIN) {
    throw new AppError(
      "source",
      `Use PostgreSQL "${text}": wanted version ${MAJOR_VERSION_MIN} or newer`,
      { hint: `upgrade PostgreSQL: klio works with version ${MAJOR_VERSION_MIN} and newer` },
    );
  }
  return major * 10_000 + Number(match?.[2] ?? 0);
}

/** See the module comment. One query at a time. */
export class SqlConnection implements AsyncDisposable {
  readonly serverVersion: number;
  readonly #settings: ConnectionSettings;
  readonly #client: PgClient;
  readonly #socket: Socket;

  constructor(settings: ConnectionSettings, started: StartedConnection) {
    this.#settings = settings;
    this.#client = started.client;
    this.#socket = started.socket;
    this.serverVersion = started.serverVersion;
  }

  /** Connects. */
  static async open(settings: ConnectionSettings, options: Waiting): Promise<SqlConnection> {
    const started = await startConnection(settings, { ...options, replication: false });
    return new SqlConnection(settings, started);
  }

  /** Runs one statement. An abort closes the connection: its state would be unknown. */
  async query(
    text: string,
    options: Waiting & { readonly values?: readonly unknown[] },
  ): Promise<readonly Row[]> {
    try {
      const result = this.#client.query(text, [...(options.values ?? [])]);
      return (await abortable(result, options)).rows;
    } catch (error) {
      if (options.signal.aborted) this.#socket.destroy();
      throw translate(error, "Run a statement on PostgreSQL", this.#settings);
    }
  }

  /** Says goodbye and closes the socket; idempotent, never throws. */
  async close(): Promise<void> {
    await closeSocket(this.#socket, TERMINATE);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The Terminate message. */
export const TERMINATE: Uint8Array = Uint8Array.of(0x58, 0, 0, 0, 4);
const CLOSE_TIMEOUT_MS = 1000;

/** Sends the last bytes if the peer still takes them, then closes; resolves when the descriptor is gone. */
export async function closeSocket(socket: Socket, last: Uint8Array): Promise<void> {
  if (socket.closed) return;
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  using limit = deadline({ timeoutMs: CLOSE_TIMEOUT_MS, what: "Close the connection" });
  const destroy = () => socket.destroy();
  limit.signal.addEventListener("abort", destroy, { once: true });
  if (socket.writable) socket.end(last, destroy);
  else destroy();
  await closed;
}
