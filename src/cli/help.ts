/**
 * Help texts, made from the command table and the settings: what help shows is what is parsed.
 *
 * @module
 */

import { EXIT_WAL_NOT_FOUND, FAILURES } from "../base/failure.ts";
import { type Command, COMMANDS, COMMON_FLAGS } from "./commands.ts";
import type { Flag } from "./flags.ts";
import { settingsOf } from "./settings.ts";

const WIDTH = 100;

/** Breaks `text` at spaces so that no line exceeds {@link WIDTH}; lines after the first get `indent` spaces. */
function wrap(text: string, indent: number): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && indent + line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line].join(`\n${" ".repeat(indent)}`);
}

/** Two columns; the second wraps. */
function columns(rows: readonly (readonly [string, string])[], columnMax = 34): string {
  const width = Math.min(columnMax, Math.max(0, ...rows.map(([left]) => left.length)) + 2);
  return rows.map(([left, right]) => {
    const gap = left.length + 2 > width
      ? `\n  ${" ".repeat(width)}`
      : " ".repeat(width - left.length);
    return `  ${left}${gap}${wrap(right, width + 2)}`;
  }).join("\n");
}

function flagText(flag: Flag): string {
  return flag.type === "boolean"
    ? `--${flag.name}`
    : `--${flag.name} ${flag.placeholder ?? "VALUE"}`;
}

/** `klio --help`. */
export function mainHelp(): string {
  return [
    "klio: backup and recovery of PostgreSQL\n",
    "Usage: klio COMMAND [OPTIONS]\n",
    "Commands:",
    columns(COMMANDS.map((c) => [c.command, c.summary] as const)),
    "\nOptions:",
    columns([["--help", "show this help; klio COMMAND --help explains a command"], [
      "--version",
      "show the version",
    ]]),
    "\nExit codes:",
    exitCodeTable(),
    "",
  ].join("\n");
}

/** The documented exit codes, one line each. */
export function exitCodes(): readonly (readonly [number, string])[] {
  const byCode = new Map<number, string[]>([[0, ["success"]], [EXIT_WAL_NOT_FOUND, [
    "wal get: the archive does not have this WAL file",
  ]]]);
  for (const [kind, { exit, meaning }] of Object.entries(FAILURES)) {
    byCode.set(exit, [...(byCode.get(exit) ?? []), `${kind}: ${meaning}`]);
  }
  byCode.set(143, ["cancelled by SIGTERM (roles that drained in good order exit with 0)"]);
  return [...byCode].map(([code, texts]) => [code, texts.join("; ")] as const).sort((a, b) =>
    a[0] - b[0]
  );
}

function exitCodeTable(): string {
  return columns(exitCodes().map(([code, text]) => [String(code), text] as const));
}

/** `klio COMMAND --help`. */
export function commandHelp(command: Command): string {
  const usage = ["klio", command.command, ...command.positionals.map((p) => p.name), "[OPTIONS]"]
    .join(" ");
  const settings = settingsOf([...command.sections, "log"]);
  return [
    `${command.summary}\n`,
    `Usage: ${usage}\n`,
    wrap(command.description, 0),
    ...(command.positionals.length === 0
      ? []
      : ["\nArguments:", columns(command.positionals.map((p) => [p.name, p.help] as const))]),
    "\nOptions:",
    columns([...command.flags, ...COMMON_FLAGS].map((f) => [flagText(f), f.help] as const)),
    "\nSettings (flag, then environment variable, then key of the configuration file):",
    columns(settings.map((s) =>
      [
        `--${s.flag}`,
        `${s.help}${
          s.defaultText === undefined ? "" : ` (default ${s.defaultText})`
        } [${s.env}, ${s.key}]`,
      ] as const
    )),
    "\nExamples:",
    ...command.examples.map((e) => `  ${e}`),
    "",
  ].join("\n");
}

/** Commands that begin with these words: `klio backup --help`. */
export function groupHelp(group: string, commands: readonly Command[]): string {
  return [
    `Usage: klio ${group} COMMAND [OPTIONS]\n`,
    "Commands:",
    columns(commands.map((c) => [c.command, c.summary] as const)),
    "",
  ].join("\n");
}
