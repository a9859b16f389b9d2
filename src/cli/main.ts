/**
 * The command line: finds the command, parses its words, loads its code, runs it, and turns whatever comes out into one
 * message and one documented exit code. First SIGTERM or SIGINT asks the command to finish, the second exits at once.
 *
 * @module
 */

import { AppError, describeError, failureKind, FAILURES, findAppError } from "../base/failure.ts";
import type { Logger, LogLevel } from "../base/log.ts";
import { SYSTEM_CLOCK, SYSTEM_RANDOM } from "../adapters/process/clock.ts";
import { createLogger, type LogFormat } from "../adapters/process/logger.ts";
import { openLocalFiles } from "../adapters/localfs/files.ts";
import { fromUtf8 } from "../base/bytes.ts";
import { type Command, COMMANDS, COMMON_FLAGS } from "./commands.ts";
import { type ConfigSources, loadConfig } from "./config.ts";
import { type Arguments, parseFlags } from "./flags.ts";
import { commandHelp, groupHelp, mainHelp } from "./help.ts";
import { settingsOf } from "./settings.ts";
import { versionText } from "./version.ts";

const STOP_SIGNALS = { SIGINT: 130, SIGTERM: 143 } as const;
type StopSignal = keyof typeof STOP_SIGNALS;

/** Writes all of `text` to standard output. */
export function print(text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let offset = 0; offset < bytes.length;) {
    offset += Deno.stdout.writeSync(bytes.subarray(offset));
  }
}

/** Runs klio with these words and ends the process. */
export async function main(words: readonly string[]): Promise<never> {
  Deno.exit(await runKlio(words));
}

async function runKlio(words: readonly string[]): Promise<number> {
  // Until the configuration is read, what is wrong is told to a person: a command line is theirs.
  let log: Logger | undefined;
  let format: LogFormat = "text";
  const stop = new AbortController();
  let stoppedBy: StopSignal | undefined;
  const unhook = (Object.keys(STOP_SIGNALS) as StopSignal[]).map((name) => {
    const onSignal = () => {
      if (stoppedBy !== undefined) Deno.exit(STOP_SIGNALS[name]);
      stoppedBy = name;
      log?.info("Stopping; a second signal exits at once", { signal: name });
      stop.abort(new AppError("cancelled", `Stopped by ${name}`));
    };
    Deno.addSignalListener(name, onSignal);
    return () => Deno.removeSignalListener(name, onSignal);
  });
  try {
    const chosen = chooseCommand(words);
    if (typeof chosen === "string") {
      print(chosen);
      return 0;
    }
    const { command, rest } = chosen;
    const flags = [
      ...command.flags,
      ...COMMON_FLAGS,
      ...settingsOf([...command.sections, "log"]).map((s) => ({
        name: s.flag,
        type: "string" as const,
        help: s.help,
      })),
    ];
    const args = parseFlags(rest, { ...command, flags });
    if (args.boolean("help")) {
      print(commandHelp(command));
      return 0;
    }
    const sources = configSources(args);
    const logging = (await loadConfig(["log"], sources)).log;
    const terminal = Deno.stderr.isTerminal();
    if (logging.format !== "auto") format = logging.format;
    else format = terminal ? "text" : "json";
    log = openLog(logging.level, format);
    const { run } = await command.load();
    const code = await run({
      args,
      loadConfig: (sections) => loadConfig(sections, sources),
      log,
      clock: SYSTEM_CLOCK,
      random: SYSTEM_RANDOM,
      signal: stop.signal,
      print,
      interactive: terminal && format === "text",
    });
    return code ?? 0;
  } catch (error) {
    const kind = failureKind(error);
    const code = kind === "cancelled" && stoppedBy !== undefined
      ? STOP_SIGNALS[stoppedBy]
      : FAILURES[kind].exit;
    report(error, format === "json" ? log : undefined, code);
    return code;
  } finally {
    for (const f of unhook) f();
  }
}

function openLog(level: LogLevel, format: LogFormat): Logger {
  const podName = Deno.env.get("POD_NAME");
  return createLogger({
    level,
    format,
    clock: SYSTEM_CLOCK,
    ...(podName === undefined ? {} : { podName }),
  });
}

function configSources(args: Arguments): ConfigSources {
  const files = openLocalFiles();
  return {
    flag: (name) => args.string(name),
    env: (name) => Deno.env.get(name),
    file: args.string("config") ?? Deno.env.get("KLIO_CONFIG"),
    readTextFile: async (path) => fromUtf8(await files.readFile(path)),
  };
}

/** Tells the end of a command that failed: a line of the log for a machine, else a text for a person. */
function report(error: unknown, log: Logger | undefined, exitCode: number): void {
  const app = findAppError(error);
  if (log !== undefined) {
    log.error("Command failed", { exit_code: exitCode }, error);
    return;
  }
  const hint = app?.hint === undefined ? "" : `\n  hint: ${app.hint}`;
  const stack = app === undefined && error instanceof Error
    ? `\n${error.stack ?? ""}\n  this is a bug in klio: please report it`
    : "";
  console.error(`klio: ${describeError(error)}${hint}${stack}`);
}

/** The command that the words name, or a text to print. Throws `usage`. */
function chooseCommand(
  words: readonly string[],
): string | { readonly command: Command; readonly rest: readonly string[] } {
  const [first, second] = words;
  if (first === "--version") return `${versionText()}\n`;
  if (first === undefined || first === "--help" || first === "help") return mainHelp();
  for (const command of COMMANDS) {
    const path = command.command.split(" ");
    if (path.every((word, i) => words[i] === word)) {
      return { command, rest: words.slice(path.length) };
    }
  }
  const group = COMMANDS.filter((c) => c.command.startsWith(`${first} `));
  if (group.length > 0 && (second === undefined || second === "--help")) {
    return groupHelp(first, group);
  }
  const wanted = group.length > 0 ? group : COMMANDS;
  const name = group.length > 0 && second !== undefined ? `${first} ${second}` : first;
  throw new AppError(
    "usage",
    `Run "klio ${name}": unknown ${name.startsWith("-") ? "option" : "command"}`,
    {
      hint: `commands: ${wanted.map((c) => c.command).join(", ")}`,
    },
  );
}
