/**
 * A klio role as a child process of the demo: its JSON log is read line by line, the last lines are kept for error
 * messages, and it is always ended, by its own pid.
 *
 * @module
 */

import { abortable, type Waiting } from "../../base/abort.ts";
import { AppError } from "../../base/failure.ts";
import type { OwnCommand } from "../../adapters/process/self.ts";

/** One line of a role's log. */
export type LogLine = Readonly<Record<string, unknown>>;

const KEPT_LINES_MAX = 20;

async function* linesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
  if (rest !== "") yield rest;
}

function parseLine(text: string): LogLine {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return { ...value };
  } catch {
    // Not a log line, for example a message of the runtime itself: kept as text.
  }
  return { level: "error", msg: text };
}

/** See the module comment. */
export class Role implements AsyncDisposable {
  readonly name: string;
  readonly #child: Deno.ChildProcess;
  readonly #reading: Promise<void>;
  readonly #kept: LogLine[] = [];
  readonly #listeners = new Set<(line: LogLine) => void>();
  #ended: Deno.CommandStatus | undefined;

  constructor(name: string, command: OwnCommand, words: readonly string[]) {
    this.name = name;
    this.#child = new Deno.Command(command.program, {
      args: [...command.args, ...words, "--log-format=json"],
      env: command.env,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    this.#reading = this.#read();
  }

  async #read(): Promise<void> {
    for await (const text of linesOf(this.#child.stderr)) {
      const line = parseLine(text);
      this.#kept.push(line);
      if (this.#kept.length > KEPT_LINES_MAX) this.#kept.shift();
      for (const listener of this.#listeners) listener(line);
    }
    this.#ended = await this.#child.status;
    for (const listener of this.#listeners) listener({ msg: "" });
  }

  /** Process id, also after the end. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Calls `listener` for every further line. */
  onLine(listener: (line: LogLine) => void): void {
    this.#listeners.add(listener);
  }

  /** The first line, past or future, that satisfies `wanted`. Throws `source` with the last lines when the role ends before. */
  async waitFor(wanted: (line: LogLine) => boolean, options: Waiting): Promise<LogLine> {
    const past = this.#kept.find(wanted);
    if (past !== undefined) return past;
    const found = Promise.withResolvers<LogLine>();
    const listener = (line: LogLine) => {
      if (wanted(line)) found.resolve(line);
      else if (this.#ended !== undefined) found.reject(this.#endedEarly(this.#ended));
    };
    this.#listeners.add(listener);
    try {
      listener({ msg: "" }); // in case it has ended already
      return await abortable(found.promise, options);
    } finally {
      this.#listeners.delete(listener);
    }
  }

  #endedEarly(status: Deno.CommandStatus): AppError {
    const last = this.#kept.slice(-3).map((l) =>
      [l["msg"], l["error"], l["hint"]].filter((t) => t !== undefined).join(": ")
    );
    return new AppError(
      "source",
      `Run klio ${this.name}: it ended with exit code ${status.code}: ${last.join(" | ")}`,
    );
  }

  /** SIGKILL: no chance to finish anything. */
  async kill(): Promise<void> {
    this.#signal("SIGKILL");
    await this.#reading;
  }

  /** SIGTERM, then waits for the end; the exit code. */
  async stop(options: Waiting): Promise<number> {
    this.#signal("SIGTERM");
    await abortable(this.#reading, options);
    return this.#ended?.code ?? -1;
  }

  #signal(signal: Deno.Signal): void {
    if (this.#ended !== undefined) return;
    try {
      this.#child.kill(signal);
    } catch (error) {
      // It has just ended by itself: `#reading` tells.
      if (!(error instanceof TypeError) && !(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** Runs a klio command to its end; its standard output. Throws with the command's own message when it fails. */
export async function runCommand(
  command: OwnCommand,
  words: readonly string[],
  options: Waiting,
): Promise<string> {
  options.signal.throwIfAborted();
  const { code, stdout, stderr } = await new Deno.Command(command.program, {
    args: [...command.args, ...words, "--log-format=json"],
    env: command.env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal: options.signal,
  }).output();
  options.signal.throwIfAborted();
  if (code === 0) return new TextDecoder().decode(stdout);
  const lines = new TextDecoder().decode(stderr).trim().split("\n").map(parseLine);
  const last = lines.at(-1);
  throw new AppError(
    "source",
    `Run "klio ${words.slice(0, 2).join(" ")}": exit code ${code}: ${
      String(last?.["error"] ?? last?.["msg"])
    }`,
  );
}
