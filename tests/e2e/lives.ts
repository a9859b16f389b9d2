/**
 * A table whose rows tell in which life of a cluster they were written, and how to wait for it to be archived.
 *
 * @module
 */

import type { LocalCluster } from "../../src/adapters/postgres/local_cluster.ts";
import type { Stage } from "./stage.ts";

/** No test that lives takes this long. */
const options = { signal: AbortSignal.timeout(300_000) };

/** The first value of the first row, as text. */
export async function ask(cluster: LocalCluster, query: string): Promise<string> {
  await using connection = await cluster.connect(options);
  const [row] = await connection.query(query, options);
  return String(Object.values(row ?? {})[0]);
}

/** Creates the table. */
export async function createLives(cluster: LocalCluster): Promise<void> {
  await ask(cluster, "CREATE TABLE lives (life text, n int, filler text)");
}

/** Rows of one life of the cluster; about 1 KiB of WAL each. */
export async function live(cluster: LocalCluster, life: string, rows: number): Promise<void> {
  await ask(
    cluster,
    `INSERT INTO lives SELECT '${life}', i, repeat(md5(i::text), 30) FROM generate_series(1, ${rows}) i`,
  );
}

/** `life:rows` of everything that is there. */
export function lives(cluster: LocalCluster): Promise<string> {
  return ask(
    cluster,
    "SELECT string_agg(life || ':' || n, ' ' ORDER BY life) FROM (SELECT life, count(*) AS n FROM lives GROUP BY 1) l",
  );
}

export function position(cluster: LocalCluster): Promise<string> {
  return ask(cluster, "SELECT pg_current_wal_flush_lsn()::text");
}

/** Waits until the Klio server has confirmed everything that `cluster` has written. */
export async function untilArchived(stage: Stage, cluster: LocalCluster): Promise<void> {
  const wanted = await position(cluster);
  await stage.until(
    `See "${wanted}" flushed to klio`,
    async () =>
      await ask(
        cluster,
        `SELECT count(*) FROM pg_stat_replication WHERE application_name = 'klio' AND flush_lsn >= '${wanted}'`,
      ) === "1",
  );
}
