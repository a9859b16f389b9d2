/**
 * Runs klio as a process, as a user would: from sources, or the binary that `KLIO_BINARY` names. The runner interface is
 * the same, so every end-to-end test can be run against the shipped artefact.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import type { OwnCommand } from "../../src/adapters/process/self.ts";

/** How the tests start klio. */
export function klioCommand(): OwnCommand {
  const binary = Deno.env.get("KLIO_BINARY");
  if (binary !== undefined) return { program: binary, args: [], env: {} };
  const main = fileURLToPath(new URL("../../main.ts", import.meta.url));
  return { program: Deno.execPath(), args: ["run", "--quiet", "--allow-all", main], env: {} };
}

/** How a command ended. */
export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** The last line of standard error, when it is a JSON log line. */
  readonly last: Readonly<Record<string, unknown>>;
}

/** Runs `klio WORDS…` to its end. */
export async function klio(
  words: readonly string[],
  options: { readonly env?: Record<string, string> } = {},
): Promise<Outcome> {
  const command = klioCommand();
  const { code, stdout, stderr } = await new Deno.Command(command.program, {
    args: [...command.args, ...words],
    env: { ...command.env, ...options.env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const text = new TextDecoder().decode(stderr);
  let last: Record<string, unknown> = {};
  try {
    last = JSON.parse(text.trim().split("\n").at(-1) ?? "");
  } catch {
    // Not a log line: command-line errors are plain text.
  }
  return { code, stdout: new TextDecoder().decode(stdout), stderr: text, last };
}
