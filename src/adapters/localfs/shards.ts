/**
 * Where Kopia's filesystem backend keeps a blob: the rules in the file `.shards` at the root of a store (reference/kopia.md
 * 3.10). Directory parts are cut off the front of the id; short ids stay in the root.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";

/** Content of `.shards`. */
export interface Shards {
  /** Lengths of the directory names, outermost first. */
  readonly default: readonly number[];
  readonly maxNonShardedLength: number;
  /** Other lengths for ids that begin with `prefix`; the first that fits is taken. */
  readonly overrides?: readonly { readonly prefix: string; readonly shards: readonly number[] }[];
}

/** What a new store gets. */
export const NEW_SHARDS: Shards = { default: [1, 3], maxNonShardedLength: 20 };
/** What a store that holds something but has no `.shards` was written with. */
export const OLD_SHARDS: Shards = { default: [3, 3], maxNonShardedLength: 20 };

const LEVELS_MAX = 8;
const LEVEL_LENGTH_MAX = 32;

/** The bytes of `.shards`, as text. */
export function encodeShards(shards: Shards): string {
  return JSON.stringify(shards);
}

/** Throws `corruption`; `path` is for the message. */
export function decodeShards(text: string, path: string): Shards {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new AppError("corruption", `Read shard rules "${path}": not JSON`, { cause });
  }
  if (!isShards(value)) {
    throw new AppError(
      "corruption",
      `Read shard rules "${path}": wanted {"default":[lengths],"maxNonShardedLength":number}`,
    );
  }
  return value;
}

/** The directory names and the file name (without suffix) of a blob. */
export function shardPath(
  shards: Shards,
  id: string,
): { readonly directories: readonly string[]; readonly name: string } {
  if (id.length <= shards.maxNonShardedLength) return { directories: [], name: id };
  const override = shards.overrides?.find((rule) => id.startsWith(rule.prefix));
  const directories: string[] = [];
  let name = id;
  for (const length of override?.shards ?? shards.default) {
    if (length >= name.length) break;
    directories.push(name.slice(0, length));
    name = name.slice(length);
  }
  return { directories, name };
}

function isShards(value: unknown): value is Shards {
  if (!isRecord(value) || !isLengths(value.default)) return false;
  const { maxNonShardedLength: whole, overrides } = value;
  if (typeof whole !== "number" || !Number.isSafeInteger(whole) || whole < 0) return false;
  if (overrides === undefined || overrides === null) return true;
  return Array.isArray(overrides) &&
    overrides.every((rule) =>
      isRecord(rule) && typeof rule.prefix === "string" && isLengths(rule.shards)
    );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isLengths(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= LEVELS_MAX &&
    value.every((n) => Number.isInteger(n) && n >= 1 && n <= LEVEL_LENGTH_MAX);
}
