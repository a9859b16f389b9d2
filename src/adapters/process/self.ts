/**
 * How to start this very program again: the compiled binary, or Deno with `main.ts`. Used for PostgreSQL's
 * restore_command and by the demo, whose roles are real processes.
 *
 * @module
 */

import { fileURLToPath } from "node:url";

/** A command line. */
export interface OwnCommand {
  readonly program: string;
  readonly args: readonly string[];
  /** Variables that the program needs to find its cache again, when Deno runs it from sources. */
  readonly env: Readonly<Record<string, string>>;
}

/** The command line of this program, without any argument of klio's own. */
export function ownCommand(): OwnCommand {
  if (Deno.build.standalone) return { program: Deno.execPath(), args: [], env: {} };
  const cache = Deno.env.get("DENO_DIR");
  return {
    program: Deno.execPath(),
    args: ["run", "--quiet", "--allow-all", fileURLToPath(Deno.mainModule)],
    env: cache === undefined ? {} : { DENO_DIR: cache },
  };
}

/** One word for a POSIX shell. */
export function shellQuote(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A command line for a POSIX shell. */
export function shellCommand(command: OwnCommand, words: readonly string[]): string {
  const env = Object.entries(command.env).map(([name, value]) => `${name}=${shellQuote(value)}`);
  return [...env, ...[command.program, ...command.args, ...words].map(shellQuote)].join(" ");
}
