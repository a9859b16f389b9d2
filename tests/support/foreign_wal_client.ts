/**
 * The foreign client of `klio.wal.v1` in `tests/conformance/wal_v1`, built where `go` is installed. A build is kept in the
 * user's cache directory under the hash of its sources, so that it happens once per change.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";

const SOURCES = fileURLToPath(new URL("../conformance/wal_v1/", import.meta.url));

/** What one case found; without `failure` it passed. */
export interface CaseOutcome {
  readonly case: string;
  readonly failure?: string;
}

/** Path of the executable; undefined when `go` is absent. */
export async function foreignWalClient(): Promise<string | undefined> {
  const cache = Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME") ?? "/tmp"}/.cache`;
  const path = `${cache}/klio-test/wal-v1-client-${await sourceHash()}`;
  try {
    await Deno.stat(path);
    return path;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  await Deno.mkdir(`${cache}/klio-test`, { recursive: true });
  const temporary = `${path}.${crypto.randomUUID()}`;
  try {
    await execute("go", ["build", "-mod=readonly", "-o", temporary, "."], SOURCES);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  await Deno.rename(temporary, path);
  return path;
}

/** Runs the client to its end; what each case found. Throws when it could not run its cases. */
export async function runForeignWalClient(
  client: string,
  args: readonly string[],
): Promise<readonly CaseOutcome[]> {
  const output = await new Deno.Command(client, {
    args: [...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const cases: CaseOutcome[] = new TextDecoder().decode(output.stdout)
    .split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
  if (output.success || cases.some((c) => c.failure !== undefined)) return cases;
  throw new Error(`Run the foreign client: ${new TextDecoder().decode(output.stderr)}`);
}

async function sourceHash(): Promise<string> {
  const hash = createHash("sha256");
  const names: string[] = [];
  for await (const { name } of Deno.readDir(SOURCES)) {
    if (/\.go$|^go\.(?:mod|sum)$/.test(name)) names.push(name);
  }
  for (const name of names.sort()) {
    hash.update(`${name}\n`).update(await Deno.readFile(`${SOURCES}${name}`));
  }
  return hash.digest("hex").slice(0, 16);
}

async function execute(program: string, args: readonly string[], cwd: string): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, {
    args: [...args],
    cwd,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  if (success) return;
  throw new Error(`${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}
