/**
 * The command table's vocabulary and the parsing of a command line: long options only, `--name value` or `--name=value`,
 * no option twice, `--` ends options. Help is made from the same table, so what help shows is what is parsed.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { AppError } from "../base/failure.ts";

/** One option of a command. */
export interface Flag {
  /** Without the dashes: `backup-id`. */
  readonly name: string;
  readonly type: "string" | "boolean";
  /** What stands for the value in help: `FILE`. */
  readonly placeholder?: string;
  readonly help: string;
  /** May be given several times. */
  readonly multiple?: boolean;
}

/** One positional argument. */
export interface Positional {
  readonly name: string;
  readonly help: string;
}

/** A parsed command line. */
export interface Arguments {
  readonly positionals: readonly string[];
  string(name: string): string | undefined;
  strings(name: string): readonly string[];
  boolean(name: string): boolean;
}

/** What a command accepts. */
export interface Accepts {
  /** `backup run`. */
  readonly command: string;
  readonly flags: readonly Flag[];
  readonly positionals: readonly Positional[];
}

function usage(accepts: Accepts, problem: string): AppError {
  const name = accepts.command === "" ? "klio" : `klio ${accepts.command}`;
  return new AppError("usage", `Run "${name}": ${problem}`, { hint: `see: ${name} --help` });
}

/** Parses `words`. Throws `usage` naming the word that does not fit. */
export function parseFlags(words: readonly string[], accepts: Accepts): Arguments {
  const known = new Map(accepts.flags.map((f) => [f.name, f]));
  const { tokens } = parseArgs({
    args: [...words],
    options: Object.fromEntries(accepts.flags.map((f) => [f.name, { type: f.type }])),
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const values = new Map<string, string[]>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const flag = known.get(token.name);
    if (flag === undefined) throw usage(accepts, `unknown option "${token.rawName}"`);
    if (flag.type === "boolean" && token.value !== undefined) {
      throw usage(accepts, `option "${token.rawName}" takes no value, got "${token.value}"`);
    }
    if (flag.type === "string" && token.value === undefined) {
      throw usage(
        accepts,
        `option "${token.rawName}" needs a value ${flag.placeholder ?? "VALUE"}`,
      );
    }
    const given = values.get(flag.name) ?? [];
    if (given.length > 0 && flag.multiple !== true) {
      throw usage(accepts, `option "${token.rawName}" is given twice`);
    }
    values.set(flag.name, [...given, token.value ?? "true"]);
  }
  const extra = positionals[accepts.positionals.length];
  if (extra !== undefined) throw usage(accepts, `unexpected argument "${extra}"`);
  const missing = accepts.positionals[positionals.length];
  if (missing !== undefined && !values.has("help")) {
    throw usage(accepts, `argument ${missing.name} is missing (${missing.help})`);
  }
  return {
    positionals,
    string: (name) => values.get(name)?.[0],
    strings: (name) => values.get(name) ?? [],
    boolean: (name) => values.has(name),
  };
}
