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
  EMBEDDED_VERSION,
  findPostgres,
  type PostgresBinaries,
} from "../../src/adapters/postgres/postgres_binaries.ts";

/** A cluster with the directory it lives in. */
export interface TestCluster extends AsyncDisposable {
  readonly cluster: LocalCluster;
  readonly directory: string;
}

/** Major versions that klio supports, and the npm package that carries each. */
export const POSTGRES_MAJORS = {
  15: "15.18.0-beta.17",
  16: "16.14.0-beta.17",
  17: "17.10.0-beta.17",
  18: EMBEDDED_VERSION,
} as const;
/** One of {@link POSTGRES_MAJORS}. */
export type PostgresMajor = keyof typeof POSTGRES_MAJORS;

/** What a test may choose. */
export type TestClusterOptions =
  & Partial<Pick<LocalClusterOptions, "segmentSizeBytes" | "settings">>
  & PostgresChoice;

/** The version that matters to a test; any, unless told. */
export interface PostgresChoice extends Waiting {
  readonly major?: PostgresMajor;
}

/**
 * The programs that tests run on: installed ones if they are of the wanted version, else the npm package's;
 * `KLIO_TEST_POSTGRES=embedded` makes it the npm package's always.
 */
export async function testPostgres(options: PostgresChoice): Promise<PostgresBinaries> {
  const { major, signal } = options;
  const find = (source: "any" | "embedded") =>
    findPostgres({
      signal,
      source,
      environment: (name) => Deno.env.get(name),
      random: SYSTEM_RANDOM,
      ...(major === undefined ? {} : { embeddedVersion: POSTGRES_MAJORS[major] }),
    });
  if (Deno.env.get("KLIO_TEST_POSTGRES") === "embedded") return await find("embedded");
  const found = await find("any");
  return major === undefined || found.major === major ? found : await find("embedded");
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
