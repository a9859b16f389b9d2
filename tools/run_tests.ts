/**
 * `deno task test`: the everyday suite in two processes. Files that put both ends of a gRPC connection into one process run
 * in the second one, because Deno 2.9.6 itself can crash there: its `node:http2` sometimes ends the process with SIGSEGV or
 * an assertion of nghttp2 when one end closes a connection (about one run in ten of these files; no assertion of a test is
 * involved). Only such a crash, told by its exit code, makes that process run again, at most twice, and it is counted in
 * the last line. A test that fails is never tried again.
 *
 * Extra arguments are files or options for `deno test` and replace the split.
 *
 * @module
 */

import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
/** Sources of tests that host and call a server in one process have one of these. */
const NETWORK_MARKS = ["support/network.ts", "adapters/grpc/"];
/** 128 + SIGABRT, 128 + SIGSEGV. */
const CRASH_CODES: readonly number[] = [134, 139];
const TRIES_MAX = 3;

async function* testFiles(directory: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(`${ROOT}${directory}`)) {
    const path = `${directory}/${entry.name}`;
    if (entry.isDirectory && entry.name !== "node_modules") yield* testFiles(path);
    else if (entry.name.endsWith("_test.ts")) yield path;
  }
}

async function runTests(args: readonly string[]): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", "--allow-all", ...args],
    cwd: ROOT,
    stdin: "null",
  }).spawn();
  return (await child.status).code;
}

/** Files of the first and of the second process. */
async function split(): Promise<{ readonly ordinary: string[]; readonly network: string[] }> {
  const ordinary: string[] = [];
  const network: string[] = [];
  for (const directory of ["src", "tests", "tools"]) {
    for await (const path of testFiles(directory)) {
      const text = await Deno.readTextFile(`${ROOT}${path}`);
      const imports = text.split("\n").filter((line) => line.includes('from "')).join("\n");
      (NETWORK_MARKS.some((mark) => imports.includes(mark)) ? network : ordinary).push(path);
    }
  }
  return { ordinary, network };
}

if (Deno.args.length > 0) Deno.exit(await runTests(Deno.args));
const { ordinary, network } = await split();
if (ordinary.length === 0 || network.length === 0) throw new Error("No test files found");
const first = await runTests(["--parallel", ...ordinary]);
let crashes = 0;
let second = await runTests(network);
while (CRASH_CODES.includes(second) && crashes < TRIES_MAX - 1) {
  crashes++;
  console.error(`test: the Deno runtime crashed (exit code ${second}), running these files again`);
  second = await runTests(network);
}
console.log(`test: crashes of the runtime: ${crashes}`);
Deno.exit(first === 0 ? second : first);
