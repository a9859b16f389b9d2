/**
 * Writers that survive crashes: each commits one small transaction after the other, remembers which ones PostgreSQL
 * acknowledged, and connects again when its connection breaks. A commit whose acknowledgement never came may or may not
 * exist, so its number is not used again.
 *
 * @module
 */

import { SYSTEM_CLOCK } from "../../src/adapters/process/clock.ts";
import type { LocalCluster } from "../../src/adapters/postgres/local_cluster.ts";
import type { SqlConnection } from "../../src/adapters/postgres/sql_connection.ts";
import type { Waiting } from "../../src/base/abort.ts";
import { isKind } from "../../src/base/failure.ts";
import { TaskGroup } from "../../src/base/task_group.ts";

const RECONNECT_MS = 20;
const PAYLOAD = "repeat(md5($1::int || '/' || $2::int), 6)";

/** What a database has of what was acknowledged. */
export interface Audit {
  readonly acknowledged: number;
  /** `writer/number` of acknowledged commits that are not there. */
  readonly lost: readonly string[];
  /** Rows whose content is not what the writer wrote, or that nobody wrote. */
  readonly wrong: number;
}

/** See the module comment. */
export class DurableWriters implements AsyncDisposable {
  readonly #cluster: LocalCluster;
  readonly #tasks: TaskGroup;
  readonly #acknowledged: number[][];
  readonly #attempted: number[];
  #waiting: PromiseWithResolvers<void> = Promise.withResolvers<void>();
  #total = 0;

  private constructor(cluster: LocalCluster, options: Waiting & { readonly writers: number }) {
    this.#cluster = cluster;
    this.#tasks = new TaskGroup(options.signal);
    this.#acknowledged = Array.from({ length: options.writers }, () => []);
    this.#attempted = Array.from({ length: options.writers }, () => 0);
    for (let writer = 0; writer < options.writers; writer++) {
      this.#tasks.start((signal) => this.#write(writer, { signal }));
    }
  }

  /** Creates the table and starts. */
  static async start(
    cluster: LocalCluster,
    options: Waiting & { readonly writers: number },
  ): Promise<DurableWriters> {
    await using connection = await cluster.connect(options);
    await connection.query(
      "CREATE TABLE commits (writer int, n int, payload text NOT NULL, PRIMARY KEY (writer, n))",
      options,
    );
    return new DurableWriters(cluster, options);
  }

  /** Acknowledged commits so far. */
  get acknowledged(): number {
    return this.#total;
  }

  /** Waits until `count` further commits are acknowledged. */
  async further(count: number, options: Waiting): Promise<void> {
    const wanted = this.#total + count;
    const aborted = Promise.withResolvers<void>();
    const onAbort = () => aborted.reject(options.signal.reason);
    options.signal.addEventListener("abort", onAbort, { once: true });
    try {
      options.signal.throwIfAborted();
      while (this.#total < wanted) await Promise.race([this.#waiting.promise, aborted.promise]);
    } finally {
      options.signal.removeEventListener("abort", onAbort);
    }
  }

  async #write(writer: number, options: Waiting): Promise<void> {
    while (!options.signal.aborted) {
      try {
        await using connection = await this.#cluster.connect(options);
        for (;;) await this.#commit(connection, writer, options);
      } catch (error) {
        if (options.signal.aborted) return;
        if (!isKind(error, "source")) throw error; // killed, starting, or not there
      }
      await SYSTEM_CLOCK.sleep(RECONNECT_MS, options).catch(() => {/* the loop looks at it */});
    }
  }

  async #commit(connection: SqlConnection, writer: number, options: Waiting): Promise<void> {
    const n = (this.#attempted[writer] ?? 0) + 1;
    this.#attempted[writer] = n;
    await connection.query(`INSERT INTO commits VALUES ($1::int, $2::int, ${PAYLOAD})`, {
      ...options,
      values: [writer, n],
    });
    this.#acknowledged[writer]?.push(n);
    this.#total++;
    const waiting = this.#waiting;
    this.#waiting = Promise.withResolvers<void>();
    waiting.resolve();
  }

  /** What has been acknowledged until now, as a question to ask a restored database later. */
  audit(): (connection: SqlConnection, options: Waiting) => Promise<Audit> {
    const acknowledged = this.#acknowledged.map((numbers) => [...numbers]);
    const attempted = [...this.#attempted];
    return async (connection, options) => {
      const lost: string[] = [];
      let wrong = 0;
      for (const [writer, numbers] of acknowledged.entries()) {
        const rows = await connection.query(
          `SELECT n, payload = ${
            PAYLOAD.replace("$2::int", "n")
          } AS right FROM commits WHERE writer = $1::int`,
          { ...options, values: [writer] },
        );
        const there = new Set(rows.map((row) => Number(row["n"])));
        lost.push(...numbers.filter((n) => !there.has(n)).map((n) => `${writer}/${n}`));
        const last = attempted[writer] ?? 0;
        wrong += rows.filter((row) => row["right"] !== true || Number(row["n"]) > last).length;
      }
      return { acknowledged: acknowledged.flat().length, lost, wrong };
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tasks[Symbol.asyncDispose]();
  }
}
