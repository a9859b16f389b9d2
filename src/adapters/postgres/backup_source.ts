/**
 * SQL sessions for base backups: the low-level backup functions of PostgreSQL 15 and newer (manual, "Making a Base Backup
 * Using the Low Level API"). Time limits that an administrator has set for users are lifted in the session: a checkpoint or
 * a big backup takes longer, and PostgreSQL aborts a backup whose session ends.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { AppError } from "../../base/failure.ts";
import { checkSegmentSize, type Lsn, parseLsn } from "../../domain/lsn.ts";
import type { BackupSession, BackupSource, BackupStop, Tablespace } from "../../ports/postgres.ts";
import { parseConnectionString } from "./conninfo.ts";
import { type Row, SqlConnection } from "./sql_connection.ts";

const PREPARE = [
  "set statement_timeout = 0",
  "set lock_timeout = 0",
  "set idle_session_timeout = 0",
];
const DESCRIBE = `select
  (select system_identifier::text from pg_control_system()) as system_id,
  current_setting('data_directory') as data_directory,
  (select bytes_per_wal_segment::text from pg_control_init()) as segment_size_bytes,
  current_setting('data_checksums') as data_checksums`;
/** In-place tablespaces (a developer option) have a relative location: they are inside the data directory. */
const TABLESPACES =
  `select oid::text, spcname::text as name, pg_tablespace_location(oid) as location
from pg_tablespace where pg_tablespace_location(oid) like '/%' order by oid`;

/** Backup sessions on the PostgreSQL of a connection string. Throws `config` for a bad one. */
export function createBackupSource(
  options: { readonly connectionString: string },
): BackupSource {
  const settings = parseConnectionString(options.connectionString);
  return {
    async connect({ signal }) {
      await using stack = new AsyncDisposableStack();
      const sql = stack.use(await SqlConnection.open(settings, { signal }));
      for (const statement of PREPARE) await sql.query(statement, { signal });
      const session = new Session(sql, one(await sql.query(DESCRIBE, { signal })));
      stack.move();
      return session;
    },
  };
}

class Session implements BackupSession {
  readonly serverVersion: number;
  readonly systemId: string;
  readonly dataDirectory: string;
  readonly segmentSizeBytes: number;
  readonly dataChecksums: boolean;
  readonly #sql: SqlConnection;

  constructor(sql: SqlConnection, facts: Row) {
    this.#sql = sql;
    this.serverVersion = sql.serverVersion;
    this.systemId = text(facts, "system_id");
    this.dataDirectory = text(facts, "data_directory");
    this.segmentSizeBytes = Number(text(facts, "segment_size_bytes"));
    checkSegmentSize(this.segmentSizeBytes);
    this.dataChecksums = text(facts, "data_checksums") === "on";
  }

  async tablespaces(options: Waiting): Promise<readonly Tablespace[]> {
    const rows = await this.#sql.query(TABLESPACES, options);
    return rows.map((row) => ({
      oid: text(row, "oid"),
      name: text(row, "name"),
      location: text(row, "location"),
    }));
  }

  async startBackup(
    request: { readonly label: string; readonly fast: boolean },
    options: Waiting,
  ): Promise<Lsn> {
    const rows = await this.#sql.query("select pg_backup_start($1, $2)::text as lsn", {
      ...options,
      values: [request.label, request.fast],
    });
    return parseLsn(text(one(rows), "lsn"));
  }

  async stopBackup(options: Waiting): Promise<BackupStop> {
    const row = one(
      await this.#sql.query(
        "select lsn::text as lsn, labelfile, spcmapfile from pg_backup_stop(wait_for_archive => false)",
        options,
      ),
    );
    return {
      lsn: parseLsn(text(row, "lsn")),
      backupLabel: text(row, "labelfile"),
      tablespaceMap: text(row, "spcmapfile"),
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#sql.close();
  }
}

function one(rows: readonly Row[]): Row {
  const [row] = rows;
  if (row === undefined || rows.length !== 1) {
    throw new AppError("protocol", `Ask PostgreSQL: got ${rows.length} rows, wanted one`);
  }
  return row;
}

function text(row: Row, column: string): string {
  const value = row[column];
  if (typeof value !== "string") {
    throw new AppError("protocol", `Ask PostgreSQL: column "${column}" is no text`);
  }
  return value;
}
