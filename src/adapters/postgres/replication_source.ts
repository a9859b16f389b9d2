/**
 * Physical replication sessions (PostgreSQL manual, "Streaming Replication Protocol") for PostgreSQL 15 and newer. An
 * abort during a command closes the connection, since its state is unknown then; an abort while waiting for WAL only
 * stops the waiting, so that the stream can still be ended in good order.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { type Bytes, fromUtf8 } from "../../base/bytes.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError, isKind } from "../../base/failure.ts";
import type { BackendMessage } from "../../codec/pgrepl/backend.ts";
import { COPY_DONE, encodeQuery, encodeStandbyStatus } from "../../codec/pgrepl/frontend.ts";
import {
  checkSegmentSize,
  formatLsn,
  type Lsn,
  parseLsn,
  type TimelineId,
  timelineId,
} from "../../domain/lsn.ts";
import type {
  Replication,
  ReplicationEnd,
  ReplicationMessage,
  ReplicationSession,
  ReplicationSource,
  SlotState,
  StandbyStatus,
  SystemIdentification,
} from "../../ports/postgres.ts";
import { type ConnectionSettings, parseConnectionString } from "./conninfo.ts";
import { ServerError, translate, walRemoved } from "./errors.ts";
import { ReplicationWire } from "./replication_wire.ts";
import { startConnection } from "./sql_connection.ts";

/** Replication connections to the PostgreSQL of a connection string. Throws `config` for a bad one. */
export function createReplicationSource(
  options: { readonly connectionString: string; readonly clock: Clock },
): ReplicationSource {
  const settings = parseConnectionString(options.connectionString);
  return {
    async connect({ signal }) {
      const started = await startConnection(settings, { signal, replication: true });
      const wire = new ReplicationWire(started.socket);
      return new Session(wire, settings, options.clock, started.serverVersion);
    },
  };
}

type Row = ReadonlyArray<Bytes | undefined>;

class Session implements ReplicationSession {
  readonly serverVersion: number;
  readonly #wire: ReplicationWire;
  readonly #settings: ConnectionSettings;
  readonly #clock: Clock;

  constructor(
    wire: ReplicationWire,
    settings: ConnectionSettings,
    clock: Clock,
    serverVersion: number,
  ) {
    this.#wire = wire;
    this.#settings = settings;
    this.#clock = clock;
    this.serverVersion = serverVersion;
  }

  async identifySystem(options: Waiting): Promise<SystemIdentification> {
    const [systemId, timeline, position] = await this.#row("IDENTIFY_SYSTEM", options);
    return decode(() => ({
      systemId: text(systemId),
      timeline: timelineId(Number(text(timeline))),
      position: parseLsn(text(position)),
    }));
  }

  async segmentSizeBytes(options: Waiting): Promise<number> {
    const bytes = await this.#show("wal_segment_size", BYTE_UNITS, options);
    decode(() => checkSegmentSize(bytes));
    return bytes;
  }

  async senderTimeoutMs(options: Waiting): Promise<number | undefined> {
    const timeoutMs = await this.#show("wal_sender_timeout", TIME_UNITS, options);
    return timeoutMs === 0 ? undefined : timeoutMs;
  }

  async dataDirectory(options: Waiting): Promise<string | undefined> {
    try {
      const [column] = await this.#row("SHOW data_directory", options);
      return text(column);
    } catch (error) {
      if (isKind(error, "permission")) return undefined; // only pg_read_all_settings may know
      throw error;
    }
  }

  async readSlot(slot: string, options: Waiting): Promise<SlotState | undefined> {
    const [type, restartLsn, restartTimeline] = await this.#row(
      `READ_REPLICATION_SLOT ${quoteSlot(slot)}`,
      options,
    );
    if (type === undefined) return undefined;
    return decode(() => ({
      restartLsn: restartLsn === undefined ? undefined : parseLsn(text(restartLsn)),
      restartTimeline: restartTimeline === undefined
        ? undefined
        : timelineId(Number(text(restartTimeline))),
    }));
  }

  async createSlot(slot: string, options: Waiting): Promise<void> {
    // Without RESERVE_WAL, WAL could be recycled between creation and the first feedback.
    await this.#row(`CREATE_REPLICATION_SLOT ${quoteSlot(slot)} PHYSICAL (RESERVE_WAL)`, options);
  }

  async dropSlot(slot: string, options: Waiting): Promise<void> {
    await this.#run(`DROP_REPLICATION_SLOT ${quoteSlot(slot)}`, options);
  }

  async timelineHistory(
    timeline: TimelineId,
    options: Waiting,
  ): Promise<{ readonly fileName: string; readonly content: Uint8Array }> {
    const [fileName, content] = await this.#row(`TIMELINE_HISTORY ${timeline}`, options);
    if (content === undefined) throw unexpected("a history without content");
    return { fileName: text(fileName), content };
  }

  async startReplication(
    request: { readonly slot: string; readonly start: Lsn; readonly timeline: TimelineId },
    options: Waiting,
  ): Promise<Replication> {
    const { slot, start, timeline } = request;
    const running = new RunningReplication(this.#wire, this.#clock, (error) => {
      if (error instanceof ServerError && error.code === UNDEFINED_FILE) {
        return walRemoved(start, slot, error);
      }
      if (error instanceof ServerError && error.code === NOT_IN_PREREQUISITE_STATE) {
        return new AppError(
          "conflict",
          `Start replication with slot "${slot}": PostgreSQL has invalidated it`,
          { cause: error },
        );
      }
      return translate(error, "Stream WAL from PostgreSQL", this.#settings);
    });
    await running.start(
      `START_REPLICATION SLOT ${quoteSlot(slot)} PHYSICAL ${formatLsn(start)} TIMELINE ${timeline}`,
      options,
    );
    return running;
  }

  /** A setting with a unit, in the smallest of its units. */
  async #show(
    setting: string,
    units: Readonly<Record<string, number>>,
    options: Waiting,
  ): Promise<number> {
    const [column] = await this.#row(`SHOW ${setting}`, options);
    const match = /^(\d+)([A-Za-z]*)$/.exec(text(column));
    const unit = units[match?.[2] ?? ""];
    if (match === null || unit === undefined) throw unexpected(`"${text(column)}" as ${setting}`);
    return Number(match[1]) * unit;
  }

  /** The one row that a command answers with. */
  async #row(command: string, options: Waiting): Promise<Row> {
    const row = await this.#run(command, options);
    if (row !== undefined) return row;
    this.#wire.destroy();
    throw unexpected(`no row in answer to ${command}`);
  }

  /** Runs a command to its end; its one row, if it answers with one. */
  async #run(command: string, options: Waiting): Promise<Row | undefined> {
    try {
      await this.#wire.write(encodeQuery(command));
      let row: Row | undefined;
      let failure: ServerError | undefined;
      for (;;) {
        const messages = await this.#wire.read(options);
        if (messages === undefined) throw failure ?? closedByServer();
        for (const message of messages) {
          if (message.kind === "row") row = message.columns;
          else if (message.kind === "error") {
            failure = new ServerError(message.code, message.message);
          } else if (message.kind === "ready") {
            if (failure !== undefined) throw failure;
            return row;
          } else if (message.kind !== "command_complete") {
            throw unexpected(`${message.kind} in answer to ${command}`);
          }
        }
      }
    } catch (error) {
      if (!(error instanceof ServerError)) this.#wire.destroy();
      const verb = command.split(" ", 1)[0] ?? "";
      // A history file that is not there: older ones need not be, see the streamer.
      if (error instanceof ServerError && error.code === UNDEFINED_FILE) {
        throw new AppError("not_found", `Run ${command}: PostgreSQL has no such file`, {
          cause: error,
        });
      }
      throw translate(error, `Run ${verb}`, this.#settings);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#wire[Symbol.asyncDispose]();
  }
}

const UNDEFINED_FILE = "58P01";
const NOT_IN_PREREQUISITE_STATE = "55000";
const BYTE_UNITS = { kB: 2 ** 10, MB: 2 ** 20, GB: 2 ** 30 };
/** Zero, which means never, has no unit. */
const TIME_UNITS = { "": 1, ms: 1, s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 };

class RunningReplication implements Replication {
  readonly #wire: ReplicationWire;
  readonly #clock: Clock;
  readonly #translate: (error: unknown) => unknown;
  /** PostgreSQL sends no more WAL. */
  #serverDone = false;
  #clientDone = false;
  /** CommandComplete has arrived: what comes after it, ReadyForQuery or a closed connection, says nothing more. */
  #complete = false;
  #ready = false;
  #next: Row | undefined;
  /** WAL that came in one read with CopyBoth. */
  #early: ReplicationMessage[] = [];

  constructor(wire: ReplicationWire, clock: Clock, translateError: (error: unknown) => unknown) {
    this.#wire = wire;
    this.#clock = clock;
    this.#translate = translateError;
  }

  /** Waits for CopyBoth. On a timeline that ended exactly at the start, PostgreSQL answers with the next one instead. */
  async start(command: string, options: Waiting): Promise<void> {
    let copying = false;
    try {
      await this.#wire.write(encodeQuery(command));
      while (!copying && !this.#ready) {
        const messages = await this.#wire.read(options);
        if (messages === undefined) throw closedByServer();
        const [first, ...rest] = messages;
        copying = first?.kind === "copy_both";
        this.#early.push(...this.#absorb(copying ? rest : messages));
      }
      if (!copying) this.#serverDone = this.#clientDone = true;
    } catch (error) {
      this.#wire.destroy();
      throw this.#translate(error);
    }
  }

  async *batches(options: Waiting): AsyncGenerator<readonly ReplicationMessage[]> {
    for (;;) {
      const early = this.#early;
      this.#early = [];
      if (early.length > 0) yield early;
      if (this.#serverDone) return;
      let batch: ReplicationMessage[];
      try {
        const messages = await this.#wire.read(options);
        if (messages === undefined) throw closedByServer();
        batch = this.#absorb(messages);
      } catch (error) {
        throw this.#translate(error);
      }
      if (batch.length > 0) yield batch;
    }
  }

  async sendStatus(status: StandbyStatus): Promise<void> {
    if (this.#clientDone) return;
    try {
      await this.#wire.write(encodeStandbyStatus(status, this.#clock.nowMs()));
    } catch (error) {
      throw this.#translate(error);
    }
  }

  async end(options: Waiting): Promise<ReplicationEnd> {
    try {
      // At a shutdown PostgreSQL says CommandComplete at once and hears no CopyDone any more.
      if (!this.#clientDone && !this.#complete) {
        this.#clientDone = true;
        await this.#wire.write(COPY_DONE);
      }
      while (!this.#ready) {
        const messages = await this.#wire.read(options);
        if (messages === undefined) {
          if (this.#complete) break;
          throw closedByServer();
        }
        this.#absorb(messages);
      }
    } catch (error) {
      this.#wire.destroy();
      throw this.#translate(error);
    }
    if (this.#next === undefined) return { kind: "ended" };
    const [timeline, start] = this.#next;
    return decode((): ReplicationEnd => ({
      kind: "timeline_switch",
      nextTimeline: timelineId(Number(text(timeline))),
      nextStart: parseLsn(text(start)),
    }));
  }

  /** Takes note of everything and returns the WAL and keepalives. Throws what PostgreSQL reports as an error. */
  #absorb(messages: readonly BackendMessage[]): ReplicationMessage[] {
    const batch: ReplicationMessage[] = [];
    for (const message of messages) {
      switch (message.kind) {
        case "data":
        case "keepalive":
          if (this.#serverDone) throw unexpected("WAL after the end of the stream");
          batch.push(message);
          break;
        case "error":
          throw new ServerError(message.code, message.message);
        case "row":
          this.#next = message.columns;
          break;
        case "copy_done":
          this.#serverDone = true;
          break;
        case "command_complete":
          this.#serverDone = this.#complete = true;
          break;
        case "ready":
          this.#serverDone = this.#ready = true;
          break;
        case "copy_both":
          throw unexpected("a second start of the stream");
      }
    }
    return batch;
  }
}

/** What PostgreSQL answers is no usage error of ours. Throws `protocol`. */
function decode<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new AppError("protocol", "Talk to PostgreSQL: got a malformed answer", { cause: error });
  }
}

function text(column: Bytes | undefined): string {
  if (column === undefined) throw unexpected("NULL where a value belongs");
  return fromUtf8(column);
}

/** Slot names are identifiers of their own kind; quoted, since some are also key words. Throws `config`. */
function quoteSlot(slot: string): string {
  if (!/^[a-z0-9_]{1,63}$/.test(slot)) {
    throw new AppError(
      "config",
      `Use replication slot "${slot}": wanted 1 to 63 lower-case letters, digits or underscores`,
    );
  }
  return `"${slot}"`;
}

function unexpected(what: string): AppError {
  return new AppError("protocol", `Talk to PostgreSQL: got ${what}`);
}

function closedByServer(): AppError {
  return new AppError("source", "Read from PostgreSQL: the server closed the connection", {
    hint: "see PostgreSQL's log: it stopped, or it ended the connection (wal_sender_timeout)",
  });
}
