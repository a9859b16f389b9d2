/**
 * Real PostgreSQL for integration tests: finds the programs and runs throw-away clusters in a temporary directory of
 * their own, gone when the test ends.
 *
 * @module
 */

import { SYSTEM_CLOCK, SYSTEM_RANDOM } from "../../src/adapters/process/clock.ts";
import type { Waiting } from "../../src/base/abort.ts";
import {
  LocalCluster,
  type LocalClusterOptions,
} from "../../src/adapters/postgres/local_cluster.ts";
import {
  findPostgres,
  type PostgresBinaries,
} from "../../src/adapters/postgres/postgres_binaries.ts";

/** A cluster with the directory it lives in. */
export interface TestCluster extends AsyncDisposable {
  readonly cluster: LocalCluster;
  readonly directory: string;
}

/** What a test may choose. */
export type TestClusterOptions =
  & Partial<Pick<LocalClusterOptions, "segmentSizeBytes" | "settings">>
  & Waiting;

/** The programs that tests run on; `KLIO_TEST_POSTGRES=embedded` makes it the npm package's. */
export function testPostgres(options: Waiting): Promise<PostgresBinaries> {
  return findPostgres({
    ...options,
    source: Deno.env.get("KLIO_TEST_POSTGRES") === "embedded" ? "embedded" : "any",
    environment: (name) => Deno.env.get(name),
    random: SYSTEM_RANDOM,
  });
}

/** A temporary directory that PostgreSQL's account can enter. */
export async function temporaryDirectory(): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir({ prefix: "klio-pg-" });
  await Deno.chmod(path, 0o711);
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** A running primary. */
export async function startTestCluster(options: TestClusterOptions): Promise<TestCluster> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory()).path;
  const cluster = stack.use(
    await LocalCluster.create({
      clock: SYSTEM_CLOCK,
      random: SYSTEM_RANDOM,
      ...options,
      binaries: await testPostgres(options),
      directory: `${directory}/pg`,
    }),
  );
  await cluster.start(options);
  const owned = stack.move();
  return { cluster, directory, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
