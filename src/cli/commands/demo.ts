/**
 * `klio demo`: sets the stage for the story, shows its steps, tells its end, and leaves nothing behind.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";
import { formatDuration } from "../../base/format.ts";
import { findPostgres } from "../../adapters/postgres/postgres_binaries.ts";
import { accountToRunAs } from "../../adapters/postgres/local_cluster.ts";
import type { CommandContext, RunCommand } from "../commands.ts";
import { stageForAccount } from "../demo/staging.ts";
import { tellStory } from "../demo/story.ts";
import { resultJson, summary } from "../demo/summary.ts";

/** See the module comment. */
export const run: RunCommand = async (context) => {
  const { args, clock, print, random, signal } = context;
  const binaries = await findPostgres({
    environment: (name) => Deno.env.get(name),
    random,
    signal,
  });
  const directory = await Deno.makeTempDir({ prefix: "klio-demo-" });
  try {
    await Deno.chmod(directory, 0o755); // PostgreSQL may run as another user
    const klio = await stageForAccount(await accountToRunAs(), `${directory}/klio`, { signal });
    const result = await tellStory({
      clock,
      random,
      klio,
      binaries,
      directory,
      onStep: stepPrinter(context),
    }, { signal });
    print(args.boolean("json") ? `${resultJson(result)}\n` : summary(result));
    if (!result.ok) {
      throw new AppError("corruption", "Compare the restored rows with the originals: they differ");
    }
  } finally {
    if (args.boolean("keep")) context.log.info("Kept the directory of the demo", { directory });
    else await Deno.remove(directory, { recursive: true });
  }
};

/** Steps on standard error: one line that is redrawn on a terminal, log events otherwise. */
function stepPrinter(
  { clock, interactive, log }: CommandContext,
): (step: { readonly title: string; readonly result?: string }) => void {
  let beginMs = clock.monotonicMs();
  return ({ title, result }) => {
    const nowMs = clock.monotonicMs();
    if (interactive) {
      const tookMs = formatDuration(nowMs - beginMs).padStart(8);
      const text = result === undefined
        ? `  …           ${title}`
        : `  ✓ ${tookMs}  ${title}: ${result}\n`;
      Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[2K${text}`));
    } else if (result !== undefined) {
      log.info("Demo step done", { step: title, result, took_ms: Math.round(nowMs - beginMs) });
    }
    beginMs = result === undefined ? nowMs : beginMs;
  };
}
