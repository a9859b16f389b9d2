/**
 * Loggers that write to standard error: JSON lines with the key names of CloudNativePG's own logs (`level`, `ts`, `logger`,
 * `msg`, `logging_pod`), or short text lines for a person at a terminal. A line is written whole and synchronously, so
 * lines of a process never interleave and the last line before an exit is not lost.
 *
 * @module
 */

import type { Clock } from "../../base/clock.ts";
import { describeError, failureKind, findAppError } from "../../base/failure.ts";
import {
  LOG_LEVELS,
  type LogFields,
  type Logger,
  type LogLevel,
  type LogValue,
} from "../../base/log.ts";

/** How lines look. */
export type LogFormat = "json" | "text";

/** Options of {@link createLogger}. */
export interface LoggerOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  readonly clock: Clock;
  /** `POD_NAME`, when in Kubernetes. */
  readonly podName?: string;
  /** Where a finished line goes; standard error by default. */
  readonly write?: (line: string) => void;
}

const ENCODER = new TextEncoder();

function writeToStderr(line: string): void {
  const bytes = ENCODER.encode(line);
  try {
    for (let offset = 0; offset < bytes.length;) {
      offset += Deno.stderr.writeSync(bytes.subarray(offset));
    }
  } catch (error) {
    // Nobody reads standard error any more (a closed pipe): losing a log line must not stop the data path.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

function jsonValue(value: LogValue): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}

function textValue(value: LogValue): string {
  const text = Array.isArray(value) ? value.join(",") : String(value);
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text);
}

function errorFields(error: unknown): LogFields {
  const app = findAppError(error);
  return {
    error: describeError(error),
    kind: failureKind(error),
    ...(app?.hint === undefined ? {} : { hint: app.hint }),
    ...(app?.data ?? {}),
  };
}

/** A logger of this process. */
export function createLogger(options: LoggerOptions): Logger {
  const write = options.write ?? writeToStderr;
  const threshold = LOG_LEVELS.indexOf(options.level);
  const emit = (level: LogLevel, message: string, fields: LogFields) => {
    if (LOG_LEVELS.indexOf(level) > threshold) return;
    const time = new Date(options.clock.nowMs()).toISOString();
    const { component, ...rest } = fields;
    if (options.format === "text") {
      const details = Object.entries(rest).filter(([, v]) => v !== undefined)
        .map(([k, v]) => ` ${k}=${textValue(v)}`).join("");
      write(
        `${time.slice(11, 19)} ${level.padEnd(7)} ${component ?? "klio"}: ${message}${details}\n`,
      );
      return;
    }
    const line: Record<string, unknown> = {
      level,
      ts: time,
      logger: component ?? "klio",
      msg: message,
    };
    if (options.podName !== undefined) line["logging_pod"] = options.podName;
    for (const [key, value] of Object.entries(rest)) line[key] = jsonValue(value);
    write(JSON.stringify(line) + "\n");
  };
  const bound = (base: LogFields): Logger => ({
    error: (message, fields, error) =>
      emit("error", message, {
        ...base,
        ...fields,
        ...(error === undefined ? {} : errorFields(error)),
      }),
    warn: (message, fields, error) =>
      emit("warning", message, {
        ...base,
        ...fields,
        ...(error === undefined ? {} : errorFields(error)),
      }),
    info: (message, fields = {}) => emit("info", message, { ...base, ...fields }),
    debug: (message, fields = {}) => emit("debug", message, { ...base, ...fields }),
    with: (fields) => bound({ ...base, ...fields }),
  });
  return bound({});
}
