/**
 * The one table of failures: kind (which is also the metric label) → retry advice, gRPC code, exit code. Nothing else spells these. Every
 * error that leaves a module is an {@link AppError} of one of these kinds; foreign errors are translated once, in the
 * adapter that met them, from codes and not from texts.
 *
 * Exit codes follow sysexits.h and keep upstream Klio's meaning of 65, 68 and 69; `not_found` of a WAL file keeps its
 * exit code 4 (`klio wal get`), see {@link EXIT_WAL_NOT_FOUND}.
 *
 * @module
 */

import { AssertionFailure } from "./assert.ts";

/** What a caller may do about a failure. */
export type RetryAdvice = "no" | "yes" | "after_reread" | "after_relief" | "reconnect" | "caller";

/** One row of the failure table. */
export interface FailureRow {
  readonly retry: RetryAdvice;
  /** Numeric gRPC status code. */
  readonly grpc: number;
  readonly exit: number;
  readonly meaning: string;
}

/** The failure table; `README.md` shows it and a test compares the two. */
export const FAILURES = {
  usage: row("no", 3, 64, "unknown command or flag, or a wrong argument"),
  config: row("no", 9, 78, "missing or wrong setting"),
  not_found: row("no", 5, 66, "the thing asked for does not exist"),
  end_of_wal: row("no", 11, 66, "position past the end of the archive"),
  conflict: row("after_reread", 10, 75, "somebody else holds it or has changed it"),
  permission: row("no", 7, 77, "credentials missing or refused"),
  source: row("yes", 14, 68, "PostgreSQL unreachable, unsuitable or refusing"),
  repository: row("yes", 14, 69, "Klio server or its storage unreachable"),
  exhausted: row("after_relief", 8, 75, "a named limit was reached (disk, queue, size)"),
  protocol: row("reconnect", 13, 76, "a peer broke the protocol"),
  corruption: row("no", 15, 65, "checksum, decryption or structure is wrong"),
  timeout: row("caller", 4, 75, "a deadline of ours passed"),
  cancelled: row("caller", 1, 130, "somebody asked us to stop"),
  bug: row("no", 13, 70, "an assertion in klio failed: please report it"),
} as const satisfies Record<string, FailureRow>;

/** Name of a row of {@link FAILURES}. */
export type FailureKind = keyof typeof FAILURES;

/** Exit code of `klio wal get` when every enabled tier positively said that the file is absent. */
export const EXIT_WAL_NOT_FOUND = 4;

function row(retry: RetryAdvice, grpc: number, exit: number, meaning: string): FailureRow {
  return { retry, grpc, exit, meaning };
}

/** Details of an {@link AppError}. */
export interface AppErrorOptions {
  readonly cause?: unknown;
  /** Advice, only when the reader can do something about it. */
  readonly hint?: string;
  /** Small facts for logs. Never secrets. */
  readonly data?: Readonly<Record<string, string | number | boolean>>;
}

/**
 * An expected failure. The message names the action first, quotes the subject, gives actual and wanted value, and ends
 * without a period; advice goes to `hint`.
 */
export class AppError extends Error {
  override readonly name: string = "AppError";
  readonly kind: FailureKind;
  readonly hint: string | undefined;
  readonly data: Readonly<Record<string, string | number | boolean>>;

  constructor(kind: FailureKind, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    this.hint = options.hint;
    this.data = options.data ?? {};
  }
}

/** True when `error` (or what it suppressed or was caused by) is an {@link AppError} of that kind. */
export function isKind(error: unknown, kind: FailureKind): boolean {
  return failureKind(error) === kind;
}

/** The kind of anything thrown. Unknown errors are `bug`: an adapter failed to translate them. */
export function failureKind(error: unknown): FailureKind {
  for (const e of causes(error)) {
    if (e instanceof AppError) return e.kind;
    if (e instanceof AssertionFailure) return "bug";
    if (e instanceof DOMException && e.name === "TimeoutError") return "timeout";
    if (e instanceof DOMException && e.name === "AbortError") return "cancelled";
  }
  return "bug";
}

/** The first {@link AppError} among an error and its causes. */
export function findAppError(error: unknown): AppError | undefined {
  for (const e of causes(error)) if (e instanceof AppError) return e;
  return undefined;
}

const CAUSE_DEPTH_MAX = 16;

/** An error, then what it suppressed (a disposer must not hide the body's error), then its causes. */
function* causes(error: unknown): Generator<unknown> {
  let current = error;
  for (
    let depth = 0;
    depth < CAUSE_DEPTH_MAX && current !== undefined && current !== null;
    depth++
  ) {
    if (current instanceof SuppressedError) {
      current = current.suppressed;
      continue;
    }
    yield current;
    current = current instanceof Error ? current.cause : undefined;
  }
}

/** The whole story of an error on one line: message, then each cause that adds something. */
export function describeError(error: unknown): string {
  const parts: string[] = [];
  for (const e of causes(error)) {
    const text = e instanceof Error ? e.message || e.name : String(e);
    if (text !== "" && !parts.some((p) => p.includes(text))) parts.push(text);
  }
  return parts.join(": ");
}
