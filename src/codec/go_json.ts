/**
 * JSON and times exactly as Go's standard library writes them, because Kopia's documents are hashed: identical trees give
 * identical bytes with stock clients only when escaping, key order and fractions agree. Facts: `encoding/json` escapes
 * `<`, `>`, `&`, U+2028 and U+2029, sorts map keys by their UTF-8 bytes and keeps the order of struct fields;
 * `time.RFC3339Nano` trims trailing zeros of the fraction. Times are nanoseconds in a bigint: they exceed 2^53.
 *
 * @module
 */

import { AppError } from "../base/failure.ts";
import { assert } from "../base/assert.ts";

/** JSON text that is written through unchanged (Go's `json.RawMessage`). */
export class RawJson {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/**
 * What {@link goJson} writes. A plain object is a struct: fields in the given order, undefined ones left out. A Map is a
 * Go map: keys sorted. Bytes become base64. Numbers are finite; bigint is written as an integer.
 */
export type GoValue =
  | string
  | number
  | bigint
  | boolean
  | null
  | undefined
  | Uint8Array
  | RawJson
  | readonly GoValue[]
  | ReadonlyMap<string, GoValue>
  | { readonly [field: string]: GoValue };

/**
 * The JSON text of `value`, without a trailing newline (Go's `Encoder` adds one, `Marshal` does not). `indent` is Go's
 * `MarshalIndent` with that many spaces.
 */
export function goJson(value: GoValue, indent = 0): string {
  return write(value, indent, "\n");
}

function write(value: GoValue, indent: number, newline: string): string {
  if (value === null || value === undefined) return "null";
  switch (typeof value) {
    case "string":
      return quote(value);
    case "number":
      assert(Number.isFinite(value), "a JSON number is finite");
      return String(value);
    case "bigint":
    case "boolean":
      return String(value);
  }
  if (value instanceof RawJson) return value.text;
  if (value instanceof Uint8Array) return `"${value.toBase64()}"`;
  const inner = indent === 0 ? "" : newline + " ".repeat(indent);
  if (isList(value)) {
    return bracket("[", value.map((item) => write(item, indent, inner)), "]", inner, newline);
  }
  const colon = indent === 0 ? ":" : ": ";
  const members: string[] = [];
  for (const [key, member] of value instanceof Map ? sorted(value) : Object.entries(value)) {
    if (member !== undefined) members.push(quote(key) + colon + write(member, indent, inner));
  }
  return bracket("{", members, "}", inner, newline);
}

function isList(value: object): value is readonly GoValue[] {
  return Array.isArray(value);
}

function bracket(
  open: string,
  parts: readonly string[],
  close: string,
  inner: string,
  newline: string,
): string {
  if (parts.length === 0) return open + close;
  return open + inner + parts.join("," + inner) + (inner === "" ? "" : newline) + close;
}

/** UTF-16 order differs from UTF-8 order beyond the BMP, so code points are compared. */
function sorted(map: ReadonlyMap<string, GoValue>): Array<[string, GoValue]> {
  return [...map].sort(([a], [b]) => compareCodePoints(a, b));
}

/** Order of Go's string comparison (UTF-8 bytes, which is the order of code points). Negative, zero or positive. */
export function compareCodePoints(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    // Surrogates stand for code points above every other UTF-16 unit.
    return (isSurrogate(x) ? x + 0x10000 : x) - (isSurrogate(y) ? y + 0x10000 : y);
  }
  return a.length - b.length;
}

function isSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdfff;
}

// JSON.stringify already agrees with Go on control characters (\b \f \n \r \t, the rest as \u00xx).
function quote(text: string): string {
  const plain = JSON.stringify(text);
  return /[<>&\u2028\u2029]/.test(plain)
    ? plain.replace(
      /[<>&\u2028\u2029]/g,
      (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"),
    )
    : plain;
}

const NS_PER_SECOND = 1_000_000_000n;
const TIME =
  /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:[.,](\d{1,30}))?(?:Z|([+-])(\d{2}):(\d{2}))$/;

/** RFC 3339 in UTC with up to nine fractional digits, trailing zeros trimmed. Years 0 to 9999. */
export function formatGoTime(ns: bigint): string {
  let seconds = ns / NS_PER_SECOND;
  let fraction = ns % NS_PER_SECOND;
  if (fraction < 0n) {
    fraction += NS_PER_SECOND;
    seconds -= 1n;
  }
  const text = new Date(Number(seconds) * 1000).toISOString();
  assert(text.length === 24, "a time lies in the years 0 to 9999");
  const digits = fraction === 0n ? "" : "." + String(fraction).padStart(9, "0").replace(/0+$/, "");
  return text.slice(0, 19) + digits + "Z";
}

/** Nanoseconds since the epoch; offsets are honoured, digits past the ninth dropped. Throws `protocol`. */
export function parseGoTime(text: string): bigint {
  const match = TIME.exec(text);
  const [, base = "", fraction = "", sign, hours = "0", minutes = "0"] = match ?? [];
  const ms = match === null ? NaN : Date.parse(base + "Z");
  // The round trip refuses what Date merely normalises: 30 February, hour 24.
  if (
    Number.isNaN(ms) || new Date(ms).toISOString().slice(0, 19) !== base ||
    Number(hours) > 23 || Number(minutes) > 59
  ) {
    throw new AppError("protocol", `Parse time "${text.slice(0, 64)}": not RFC 3339`);
  }
  const offsetSeconds = (Number(hours) * 3600 + Number(minutes) * 60) * (sign === "-" ? -1 : 1);
  const wholeSeconds = BigInt(ms / 1000 - offsetSeconds);
  return wholeSeconds * NS_PER_SECOND + BigInt(fraction.slice(0, 9).padEnd(9, "0"));
}
