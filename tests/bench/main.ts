/**
 * `deno task bench`: without a word the micro benchmarks of the hot paths, with `wal` the WAL path as a whole.
 *
 * @module
 */

import { runWalBench } from "./wal/main.ts";

async function runMicroBenchmarks(): Promise<number> {
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: ["bench", "--allow-all", import.meta.dirname ?? "tests/bench"],
  }).spawn().status;
  return code;
}

if (import.meta.main) {
  const [name, ...words] = Deno.args;
  if (name === undefined) Deno.exit(await runMicroBenchmarks());
  if (name === "wal") Deno.exit(await runWalBench(words));
  console.error(`There is no benchmark "${name}": say "wal", or nothing for the micro benchmarks`);
  Deno.exit(64);
}
