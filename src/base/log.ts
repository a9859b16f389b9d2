/**
 * The logger interface. A log line is a constant sentence plus fields; it says which component speaks. Levels: error =
 * somebody must act, warn = we recovered, info = life cycle, debug = per item. Secrets never enter.
 *
 * @module
 */

/** Severity, in the order of verbosity. */
export const LOG_LEVELS = ["error", "warning", "info", "debug", "trace"] as const;
/** One of {@link LOG_LEVELS}. */
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Values that may stand in a log line; bigint is written as a decimal string. */
export type LogValue = string | number | boolean | bigint | null | undefined | readonly string[];
/** Fields of a log line. */
export type LogFields = Readonly<Record<string, LogValue>>;

/** Where features write their log. */
export interface Logger {
  error(message: string, fields?: LogFields, error?: unknown): void;
  /** `error` is described with all its causes. */
  warn(message: string, fields?: LogFields, error?: unknown): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  /** A child logger whose lines carry these fields; `component` names the speaker. */
  with(fields: LogFields): Logger;
}

/** A logger that says nothing; for tests and for library use. */
export const SILENT: Logger = {
  error() {},
  warn() {},
  info() {},
  debug() {},
  with() {
    return SILENT;
  },
};
