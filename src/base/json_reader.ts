/**
 * Reads foreign JSON documents field by field: every access states the wanted type, and a document that is not what it
 * should be gives an `AppError` of the kind and with the subject its reader was made for, never a `TypeError` later on.
 *
 * @module
 */

import { fromUtf8 } from "./bytes.ts";
import { AppError, type FailureKind } from "./failure.ts";

/** What is being read and which kind of failure a wrong document is. */
export interface JsonSubject {
  /** The action, for messages: `Read directory "k01ab"`. */
  readonly what: string;
  readonly kind: Extract<FailureKind, "protocol" | "corruption">;
  /** Keep integers beyond 2^53 exact, as bigint. Costs a callback per value. */
  readonly wideIntegers?: boolean;
}

/** One JSON object. */
export class JsonReader {
  readonly #subject: JsonSubject;
  readonly #fields: ReadonlyMap<string, unknown>;

  private constructor(value: unknown, subject: JsonSubject) {
    this.#subject = subject;
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new AppError(subject.kind, `${subject.what}: wanted a JSON object`);
    }
    this.#fields = new Map(Object.entries(value));
  }

  /** Parses a document whose top is an object. */
  static parse(document: Uint8Array | string, subject: JsonSubject): JsonReader {
    const text = typeof document === "string" ? document : fromUtf8(document);
    let value: unknown;
    try {
      value = subject.wideIntegers === true ? JSON.parse(text, keepWide) : JSON.parse(text);
    } catch (cause) {
      throw new AppError(subject.kind, `${subject.what}: not valid JSON`, { cause });
    }
    return new JsonReader(value, subject);
  }

  has(key: string): boolean {
    const value = this.#fields.get(key);
    return value !== undefined && value !== null;
  }

  string(key: string, fallback?: string): string {
    const value = this.#get(key) ?? fallback;
    if (typeof value !== "string") this.fail(key, "a string");
    return value;
  }

  /** A whole number within ±2^53. */
  integer(key: string, fallback?: number): number {
    const value = this.#get(key) ?? fallback;
    if (typeof value !== "number" || !Number.isSafeInteger(value)) this.fail(key, "an integer");
    return value;
  }

  /** A whole number of any size; exact beyond 2^53 only with `wideIntegers`. */
  wideInteger(key: string): bigint {
    const value = this.#get(key);
    if (typeof value === "bigint") return value;
    return BigInt(this.integer(key));
  }

  object(key: string): JsonReader {
    return new JsonReader(this.#get(key), {
      ...this.#subject,
      what: `${this.#subject.what}, field "${key}"`,
    });
  }

  /** A list of objects; absent or null is empty. */
  objects(key: string): JsonReader[] {
    const value = this.#get(key) ?? [];
    if (!Array.isArray(value)) this.fail(key, "a list");
    const subject = { ...this.#subject, what: `${this.#subject.what}, field "${key}"` };
    return value.map((item: unknown) => new JsonReader(item, subject));
  }

  /** A list of strings; absent or null is empty. */
  strings(key: string): string[] {
    const value = this.#get(key) ?? [];
    if (!Array.isArray(value)) this.fail(key, "a list");
    return value.map((item: unknown) => {
      if (typeof item !== "string") this.fail(key, "a list of strings");
      return item;
    });
  }

  /** An object whose values are strings; absent or null is empty. */
  stringMap(key: string): Map<string, string> {
    if (!this.has(key)) return new Map();
    const inner = this.object(key);
    return new Map([...inner.#fields.keys()].map((name) => [name, inner.string(name)]));
  }

  /** Refuses the document because of `key`. */
  fail(key: string, wanted: string): never {
    throw new AppError(
      this.#subject.kind,
      `${this.#subject.what}: field "${key}" is not ${wanted}`,
    );
  }

  #get(key: string): unknown {
    return this.#fields.get(key) ?? undefined;
  }
}

/** The source text of a number is the third argument of a reviver; the type library does not know it yet. */
function keepWide(_key: string, value: unknown, context?: { readonly source?: string }): unknown {
  const source = context?.source;
  if (typeof value !== "number" || Number.isSafeInteger(value) || source === undefined) {
    return value;
  }
  return /^-?\d{1,40}$/.test(source) ? BigInt(source) : value;
}
