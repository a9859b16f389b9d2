/**
 * Forgotten awaits: `deno lint` sees no types and cannot find them, oxlint with tsgolint can. tsgolint takes its types from the
 * `tsconfig.json` above each file, and silently checks without any where there is none; a tsconfig of ours would be read
 * by Deno too. So this script copies the sources to `build/promises`, next to a tsconfig and to the declarations of this
 * very Deno, and lints the copies. In every folder it plants a sample full of forgotten awaits first: when one of them
 * goes unnoticed the check is broken, and says so instead of passing. The linters' versions are pinned in
 * `tools/oxlint`, apart from what klio itself imports.
 *
 * Exit code 0: nothing found. 1: findings. 70: the check does not see the mistakes of its samples.
 *
 * @module
 */

const ROOT = new URL("../", import.meta.url).pathname;
const TREE = `${ROOT}build/promises`;
const FOLDERS = ["src", "tests", "tools"];

const TSCONFIG = {
  compilerOptions: {
    strict: true,
    noEmit: true,
    noUncheckedIndexedAccess: true,
    exactOptionalPropertyTypes: true,
    target: "esnext",
    module: "esnext",
    moduleResolution: "bundler",
    allowImportingTsExtensions: true,
    resolveJsonModule: true,
    skipLibCheck: true,
    lib: ["esnext"],
    types: ["node"],
    typeRoots: ["../../tools/oxlint/node_modules/@types"],
  },
  include: ["**/*.ts"],
};

/** Each line marked with a rule must be reported by that rule, and no other line by any. */
const SAMPLE = `
import { readFile } from "node:fs/promises";
import { retry } from "../src/base/retry.ts";
import { TaskGroup } from "../src/base/task_group.ts";
async function own(): Promise<void> {
  await readFile("x");
}
export async function sample(options: Parameters<typeof retry>[1]): Promise<void> {
  own(); // no-floating-promises
  readFile("x"); // no-floating-promises
  Deno.readFile("x"); // no-floating-promises
  retry(own, options); // no-floating-promises
  new TaskGroup(options.signal).join(); // no-floating-promises
  if (own()) return; // no-misused-promises
  [1].forEach(async () => await own()); // no-misused-promises
  options.signal.addEventListener("abort", async () => await own()); // no-misused-promises
  await own();
  void own();
  await Promise.all([own(), Deno.readFile("x")]);
}
`.trimStart();
const SAMPLE_NAME = "forgotten_awaits_sample.ts";

/** Copies the TypeScript and JSON files below `from` into `to`; the paths of the TypeScript copies. */
async function copySources(from: string, to: string): Promise<string[]> {
  await Deno.mkdir(to, { recursive: true });
  const copies: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    if (isDirectory && name !== "node_modules") {
      copies.push(...await copySources(`${from}/${name}`, `${to}/${name}`));
    } else if (/\.(?:ts|json)$/.test(name)) {
      await Deno.copyFile(`${from}/${name}`, `${to}/${name}`);
      if (name.endsWith(".ts")) copies.push(`${to}/${name}`);
    }
  }
  return copies;
}

/** Fills the tree that is linted; the paths of all copies and samples. */
async function prepare(): Promise<string[]> {
  await Deno.remove(TREE, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  const files: string[] = [];
  for (const folder of FOLDERS) {
    files.push(...await copySources(`${ROOT}${folder}`, `${TREE}/${folder}`));
    files.push(`${TREE}/${folder}/${SAMPLE_NAME}`);
    await Deno.writeTextFile(`${TREE}/${folder}/${SAMPLE_NAME}`, SAMPLE);
  }
  for (const name of ["main.ts", "deno.json"]) await Deno.copyFile(ROOT + name, `${TREE}/${name}`);
  await Deno.symlink("../../node_modules", `${TREE}/node_modules`);
  await Deno.writeTextFile(`${TREE}/tsconfig.json`, JSON.stringify(TSCONFIG));
  const types = await new Deno.Command(Deno.execPath(), { args: ["types"] }).output();
  await Deno.writeFile(`${TREE}/deno.d.ts`, types.stdout);
  return [`${TREE}/main.ts`, ...files];
}

/** Lints the copies; a line per finding, as `src/base/retry.ts:12:3: message`. */
async function lint(files: readonly string[]): Promise<string[]> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--quiet", "--config", `${ROOT}tools/oxlint/deno.json`, "npm:oxlint"],
      ...["--type-aware", "--disable-nested-config", "--format", "unix", "--allow", "all"],
      ...["--deny", "typescript/no-floating-promises"],
      ...["--deny", "typescript/no-misused-promises"],
      ...files,
    ],
    cwd: `${ROOT}tools/oxlint`, // where tsgolint is looked for
    env: { NO_COLOR: "1" },
  }).output();
  const decoder = new TextDecoder();
  const report = decoder.decode(stdout).replaceAll(`${TREE}/`, "");
  const lines = report.split("\n").filter((line) => /^\S+\.ts:\d+:\d+: /.test(line));
  // The samples make a working linter fail: anything else on its way is its own trouble.
  if (code !== 1 || lines.length === 0) console.error(report + decoder.decode(stderr));
  return lines;
}

async function main(): Promise<number> {
  const files = await prepare();
  const found = await lint(files);
  const isSample = (line: string) => line.includes(`/${SAMPLE_NAME}:`);
  const seen = found.filter(isSample).map((line) => line.replace(/:\d+: .*\((.*)\)\]$/, " $1"));
  const wanted = FOLDERS.flatMap((folder) =>
    SAMPLE.split("\n").flatMap((line, index) => {
      const rule = /\/\/ (no-[a-z-]+)$/.exec(line)?.[1];
      return rule === undefined ? [] : [`${folder}/${SAMPLE_NAME}:${index + 1} ${rule}`];
    })
  );
  if (seen.sort().join("\n") !== wanted.sort().join("\n")) {
    console.error(
      "Forgotten awaits: the check is broken, its samples were not reported as they are",
    );
    for (const line of wanted) if (!seen.includes(line)) console.error(`  not seen: ${line}`);
    for (const line of seen) if (!wanted.includes(line)) console.error(`  unexpected: ${line}`);
    return 70;
  }
  const findings = found.filter((line) => !isSample(line));
  for (const line of findings) console.error(line);
  console.log(`Forgotten awaits: ${findings.length} in ${files.length} files`);
  return findings.length === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main());
