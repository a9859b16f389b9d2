/**
 * `deno task compile`: one binary of `main.ts`, proven by running it.
 *
 * Without arguments it makes `build/klio`, the shipped way: with this very Deno and the denort of the same version, which
 * `deno compile` downloads by itself or `DENORT_BIN` names. With `--verify` it makes `build/klio-verify` with the pinned
 * stand-in of `tools/denort.ts` and the Deno of its version: a proof for CI, not a product.
 *
 * Either way the result must answer `--version` as the sources do and pass the smoke steps: with a wrong denort (the
 * ordinary `deno`, or another version) `deno compile` succeeds and the binary opens a prompt or does not start at all.
 *
 * Exit codes: 0 made and proven; 1 the sources do not compile or the binary fails a smoke step; 64 wrong arguments; 69 no
 * denort to be had; 78 `DENORT_BIN` names something else.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import { FAILURES } from "../src/base/failure.ts";
import { SMOKE_STEPS, versionOf } from "../tests/e2e/smoke.ts";
import { DENORT_VERSION, fetchDenort } from "./denort.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));

/** What klio may do: everything but native code, which it has none of. */
const PERMISSIONS = [
  "--no-prompt",
  "--allow-read",
  "--allow-write",
  "--allow-net",
  "--allow-env",
  "--allow-sys",
  "--allow-run",
];

/** How to make a binary. */
interface Recipe {
  /** The Deno that compiles. */
  readonly deno: readonly string[];
  readonly denort: string | undefined;
  /** Flags that only this Deno knows or needs. */
  readonly flags: readonly string[];
  readonly output: string;
}

/** Runs a program in the repository; how it ended, with its output on the way to the terminal when asked. */
async function run(
  command: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<{ readonly code: number; readonly text: string }> {
  const [program = "", ...args] = command;
  const { code, stdout, stderr } = await new Deno.Command(program, {
    args,
    cwd: ROOT,
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
  }).output();
  return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

function say(text: string): void {
  console.log(`compile: ${text}`);
}

/** What a person must do to have a denort. */
function explainMissingDenort(): void {
  const version = Deno.version.deno;
  say(`no denort of Deno ${version}: its download failed and DENORT_BIN is not set`);
  say(
    `needed: the file denort-${Deno.build.target}.zip of the official release v${version} of Deno`,
  );
  say("unpack it and run again with DENORT_BIN=<path of the unpacked denort>");
}

/** Makes the binary; the exit code, 0 when it exists. */
async function compile(recipe: Recipe): Promise<number> {
  await Deno.mkdir(`${ROOT}build`, { recursive: true });
  const check = await run([Deno.execPath(), "check", "main.ts"], {});
  if (check.code !== 0) {
    say(`the sources do not compile\n${check.text}`);
    return 1;
  }
  const command = [...recipe.deno, "compile", "--no-check", "--node-modules-dir=none", "--frozen"];
  command.push(...recipe.flags, ...PERMISSIONS, "--output", recipe.output, "main.ts");
  const env = recipe.denort === undefined ? undefined : { DENORT_BIN: recipe.denort };
  const { code, text } = await run(command, env ?? {});
  if (code === 0) return 0;
  if (/denort-[\w-]+\.zip/.test(text)) {
    explainMissingDenort();
    return FAILURES.repository.exit;
  }
  say(`deno compile ended with code ${code}\n${text}`);
  return 1;
}

/** Proves the binary; the exit code. `wanted` is the answer to `--version`. */
async function prove(recipe: Recipe, wanted: string): Promise<number> {
  try {
    const answer = await versionOf([recipe.output]);
    if (answer !== wanted) throw new Error(`it answers "${answer}", the sources "${wanted}"`);
  } catch (error) {
    await Deno.remove(recipe.output);
    say(`the result is not klio: ${error instanceof Error ? error.message : error}`);
    say(`DENORT_BIN must be denort (not deno) of the compiling version, is ${recipe.denort}`);
    return FAILURES.config.exit;
  }
  let failed = 0;
  for (const step of SMOKE_STEPS) {
    try {
      await step.run([recipe.output]);
      say(`ok: ${step.name}`);
    } catch (error) {
      failed++;
      say(`FAILED: ${step.name}: ${error instanceof Error ? error.message : error}`);
    }
  }
  const { size } = await Deno.stat(recipe.output);
  say(`${recipe.output.slice(ROOT.length)}: ${Math.round(size / 2 ** 20)} MiB, ${wanted}`);
  say(`smoke: ${SMOKE_STEPS.length - failed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

/** An older Deno refuses a `deno.json` with settings that it does not know: writes one with what compiling needs. */
async function writeOldConfig(): Promise<string> {
  const { imports, compilerOptions } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`));
  const path = `${ROOT}build/deno-${DENORT_VERSION}.json`;
  await Deno.writeTextFile(path, JSON.stringify({ imports, compilerOptions }));
  return path;
}

async function main(args: readonly string[]): Promise<number> {
  const sources = await versionOf([Deno.execPath(), "run", "-A", `${ROOT}main.ts`]);
  if (args.length === 0) {
    const recipe = {
      deno: [Deno.execPath()],
      denort: Deno.env.get("DENORT_BIN"),
      flags: ["--exclude-unused-npm"],
      output: `${ROOT}build/klio`,
    };
    const code = await compile(recipe);
    if (code === FAILURES.repository.exit) say("smoke: not run: no denort");
    return code === 0 ? await prove(recipe, sources) : code;
  }
  if (args.join() !== "--verify") {
    say(`unknown arguments "${args.join(" ")}": wanted none or --verify`);
    return FAILURES.usage.exit;
  }
  await Deno.mkdir(`${ROOT}build`, { recursive: true });
  const denort = `${ROOT}build/denort-${DENORT_VERSION}`;
  const missing = await fetchDenort(denort);
  if (missing !== undefined) {
    say(`no denort of Deno ${DENORT_VERSION}: ${missing}`);
    say("smoke: not run: no denort");
    return FAILURES.repository.exit;
  }
  const deno = ["npx", "--yes", `deno@${DENORT_VERSION}`];
  const flags = ["--config", await writeOldConfig(), "--lock", `${ROOT}deno.lock`];
  const recipe = { deno, denort, flags, output: `${ROOT}build/klio-verify` };
  const code = await compile(recipe);
  const wanted = sources.replace(`Deno ${Deno.version.deno}`, `Deno ${DENORT_VERSION}`);
  return code === 0 ? await prove(recipe, wanted) : code;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
