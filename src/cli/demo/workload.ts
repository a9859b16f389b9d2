/**
 * The demo's application: writers that commit one small transaction after another, each touching three tables, and that
 * remember which commits PostgreSQL acknowledged. `pause` waits until no transaction runs, so that a checksum taken then
 * belongs to a point in time.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { failureKind } from "../../base/failure.ts";
import { TaskGroup } from "../../base/task_group.ts";
import type { LocalCluster } from "../../adapters/postgres/local_cluster.ts";
import type { SqlConnection } from "../../adapters/postgres/sql_connection.ts";

const ACCOUNTS = 100_000;

const SCHEMA = `
  CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, owner text NOT NULL);
  INSERT INTO accounts SELECT i, 1000, md5(i::text) || repeat(' ', 64) FROM generate_series(1, ${ACCOUNTS}) i;
  CREATE TABLE ledger (id bigserial PRIMARY KEY, account int NOT NULL, amount int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
  CREATE TABLE commits (writer int, n int, PRIMARY KEY (writer, n));`;

const TRANSFER = `WITH c AS (INSERT INTO commits VALUES ($1::int, $2::int)),
  a AS (UPDATE accounts SET balance = balance + $4::int WHERE id = $3::int)
  INSERT INTO ledger (account, amount) VALUES ($3::int, $4::int)`;

const TRANSFER_WITHOUT_LEDGER = `WITH c AS (INSERT INTO commits VALUES ($1::int, $2::int))
  UPDATE accounts SET balance = balance + $4::int WHERE id = $3::int`;

/** Rows and a digest of the two tables that transfers change. */
export interface Checksum {
  readonly rows: number;
  readonly digest: string;
}

/** Creates the tables and fills them. */
export async function createSchema(connection: SqlConnection, options: Waiting): Promise<void> {
  await connection.query(SCHEMA, options);
}

/** The checksum of ledger and accounts as they are now. */
export async function checksum(connection: SqlConnection, options: Waiting): Promise<Checksum> {
  const [row] = await connection.query(
    `SELECT l.n + a.n AS rows, md5(l.d || a.d) AS digest FROM
       (SELECT count(*) AS n, coalesce(md5(string_agg(ledger::text, '|' ORDER BY id)), '') AS d FROM ledger) l,
       (SELECT count(*) AS n, md5(string_agg(id || ':' || balance, '|' ORDER BY id)) AS d FROM accounts) a`,
    options,
  );
  return { rows: Number(row?.["rows"]), digest: String(row?.["digest"]) };
}

/** See the module comment. */
export class Workload implements AsyncDisposable {
  readonly #cluster: LocalCluster;
  readonly #tasks: TaskGroup;
  /** Commits acknowledged by PostgreSQL, per writer: 1 to this number. */
  readonly #acknowledged: number[];
  #withLedger = true;
  #crashExpected = false;
  #gate: PromiseWithResolvers<void> | undefined;
  #busy = 0;
  #idle: PromiseWithResolvers<void> | undefined;

  constructor(cluster: LocalCluster, options: Waiting & { readonly writers: number }) {
    this.#cluster = cluster;
    this.#tasks = new TaskGroup(options.signal);
    this.#acknowledged = Array.from({ length: options.writers }, () => 0);
    for (let writer = 0; writer < options.writers; writer++) {
      this.#tasks.start((signal) => this.#write(writer, { signal }));
    }
  }

  /** Acknowledged commits of all writers. */
  get commits(): number {
    return this.#acknowledged.reduce((sum, n) => sum + n, 0);
  }

  async #write(writer: number, options: Waiting): Promise<void> {
    try {
      await using connection = await this.#cluster.connect(options);
      for (let n = 1;; n++) {
        await this.#gate?.promise;
        options.signal.throwIfAborted();
        this.#busy++;
        try {
          const values = [writer, n, 1 + (n * 7919 + writer * 104_729) % ACCOUNTS, n % 200 - 100];
          await connection.query(this.#withLedger ? TRANSFER : TRANSFER_WITHOUT_LEDGER, {
            ...options,
            values,
          });
          this.#acknowledged[writer] = n;
        } finally {
          this.#busy--;
          if (this.#busy === 0) this.#idle?.resolve();
        }
      }
    } catch (error) {
      if (options.signal.aborted) return;
      if (this.#crashExpected && failureKind(error) !== "bug") return; // its PostgreSQL was killed
      throw error;
    }
  }

  /** Lets running transactions end and holds the writers. */
  async pause(): Promise<void> {
    this.#gate = Promise.withResolvers<void>();
    this.#idle = Promise.withResolvers<void>();
    if (this.#busy > 0) await this.#idle.promise;
  }

  /** Lets the writers go on; without `ledger` they use the other tables only. */
  resume(options: { readonly withLedger: boolean }): void {
    this.#withLedger = options.withLedger;
    const gate = this.#gate;
    this.#gate = undefined;
    gate?.resolve();
  }

  /** From now on a lost connection is what the demo wants; `end` waits until every writer has met it. */
  expectCrash(): void {
    this.#crashExpected = true;
  }

  /** Waits until all writers have ended. */
  async end(): Promise<void> {
    await this.#tasks.join();
  }

  /** How many acknowledged commits the database behind `connection` does not have. */
  async countLost(connection: SqlConnection, options: Waiting): Promise<number> {
    let lost = 0;
    for (const [writer, acknowledged] of this.#acknowledged.entries()) {
      const [row] = await connection.query(
        "SELECT count(*) AS n FROM commits WHERE writer = $1::int AND n BETWEEN 1 AND $2::int",
        { ...options, values: [writer, acknowledged] },
      );
      lost += acknowledged - Number(row?.["n"]);
    }
    return lost;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.resume({ withLedger: this.#withLedger });
    await this.#tasks[Symbol.asyncDispose]();
  }
}
