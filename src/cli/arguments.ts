/**
 * Words of a command line turned into values, with errors that name the option.
 *
 * @module
 */

import { resolve } from "node:path";
import { AppError } from "../base/failure.ts";

/** A whole number within bounds. Throws `usage`. */
export function parseCount(
  option: string,
  text: string,
  bounds: { readonly min: number; readonly max: number },
): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < bounds.min || value > bounds.max) {
    throw new AppError(
      "usage",
      `Use ${option} "${text}": wanted a whole number from ${bounds.min} to ${bounds.max}`,
    );
  }
  return value;
}

/** `UID:GID`. Throws `usage`. */
export function parseOwner(
  option: string,
  text: string,
): { readonly uid: number; readonly gid: number } {
  const match = /^(\d{1,10}):(\d{1,10})$/.exec(text);
  if (match === null) {
    throw new AppError("usage", `Use ${option} "${text}": wanted UID:GID in digits`);
  }
  return { uid: Number(match[1]), gid: Number(match[2]) };
}

/** `NAME=DIR`, repeated, as a map of absolute directories. Throws `usage`. */
export function parseMappings(
  option: string,
  texts: readonly string[],
): ReadonlyMap<string, string> {
  const mappings = new Map<string, string>();
  for (const text of texts) {
    const equals = text.indexOf("=");
    const name = text.slice(0, equals);
    const directory = text.slice(equals + 1);
    if (equals < 1 || directory === "") {
      throw new AppError("usage", `Use ${option} "${text}": wanted NAME=DIRECTORY`);
    }
    if (mappings.has(name)) {
      throw new AppError("usage", `Use ${option} "${text}": "${name}" is given twice`);
    }
    mappings.set(name, absolutePath(directory));
  }
  return mappings;
}

/** `path` seen from the working directory. */
export function absolutePath(path: string): string {
  return resolve(path);
}

/** `host:port` or `[address]:port`, already checked by the settings. */
export function splitHostPort(text: string): { readonly host: string; readonly port: number } {
  const colon = text.lastIndexOf(":");
  return {
    host: text.slice(0, colon).replace(/^\[(.*)\]$/, "$1"),
    port: Number(text.slice(colon + 1)),
  };
}
