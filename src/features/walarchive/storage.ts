/**
 * What every part of the archive shares: the file system, the key, and where files lie. Failures of the storage are told
 * as `repository` (or `exhausted`), never as `permission`, `conflict` or `not_found`: to a client those mean its own
 * credentials, its own content and the end of the WAL.
 *
 * Layout: `<root>/wal.key`, `<root>/<cluster>/cluster.json`, `<root>/<cluster>/<8 hex>.history`,
 * `<root>/<cluster>/<first 16 of the name>/<24 hex>[.partial]` with `<24 hex>.verdict.json` beside it; files being written have `.tmp.<random>` appended and mean
 * nothing after a restart.
 *
 * @module
 */

import type { Random } from "../../base/clock.ts";
import { toHex } from "../../base/bytes.ts";
import { AppError, failureKind, isKind } from "../../base/failure.ts";
import type { Logger } from "../../base/log.ts";
import type { Files } from "../../ports/files.ts";

/** See the module comment. */
export interface Storage {
  readonly files: Files;
  readonly random: Random;
  readonly log: Logger;
  /** Absolute path of the archive. */
  readonly root: string;
  readonly archiveKey: Uint8Array;
}

const PARTIAL = ".partial";
const ASIDE = /\.tmp\.[0-9a-f]+$/;
const SEGMENT_DIRECTORY = /^[0-9A-F]{16}$/;
const SEGMENT_FILE = /^([0-9A-F]{24})(\.partial)?$/;

/** Where the archive key is; also the proof that the archive's volume is there. */
export function keyPath(root: string): string {
  return `${root}/wal.key`;
}

/** Directory of a cluster. */
export function clusterDirectory(root: string, cluster: string): string {
  return `${root}/${cluster}`;
}

/** Directory of the file with this name (segments have a directory per 16 digits). */
export function directoryOf(clusterPath: string, name: string): string {
  return /^[0-9A-F]{24}$/.test(name) ? `${clusterPath}/${name.slice(0, 16)}` : clusterPath;
}

/** Path of the complete file with this name. */
export function filePath(clusterPath: string, name: string): string {
  return `${directoryOf(clusterPath, name)}/${name}`;
}

/** Path of the partial of that file. */
export function partialPath(clusterPath: string, name: string): string {
  return filePath(clusterPath, name) + PARTIAL;
}

/** Path of what the verification found in the complete segment with this name. */
export function verdictPath(clusterPath: string, name: string): string {
  return `${filePath(clusterPath, name)}.verdict.json`;
}

/** A path to write to before it becomes `path`. */
export function asidePath(path: string, random: Random): string {
  return `${path}.tmp.${toHex(random.bytes(8))}`;
}

/** True for a file that a crashed writer may have left. */
export function isAside(name: string): boolean {
  return ASIDE.test(name);
}

/** Runs a storage operation; see the module comment for what becomes of its failure. */
export async function stored<T>(what: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const kind = failureKind(error);
    if (kind !== "permission" && kind !== "not_found" && kind !== "conflict") throw error;
    throw new AppError("repository", `${what}: the storage of the WAL archive refuses`, {
      cause: error,
      hint: "check that the archive's volume is mounted and that the server may write to it",
    });
  }
}

/** Like {@link stored}, with undefined for what does not exist. */
export async function storedIfPresent<T>(what: string, work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (isKind(error, "not_found")) return undefined;
    return await stored(what, Promise.reject(error));
  }
}

/** Removes what nobody needs any more; a failure costs space only, and the next start tries again. */
export async function removeLeftover(storage: Storage, path: string): Promise<void> {
  try {
    await storage.files.remove(path);
  } catch (error) {
    if (!isKind(error, "not_found")) {
      storage.log.warn("Cannot remove a leftover file", { path }, error);
    }
  }
}

/** A stored segment. */
export interface StoredSegment {
  readonly name: string;
  readonly complete: boolean;
}

/** 16-digit directories of a cluster in the order of their names. */
export async function listSegmentDirectories(
  storage: Storage,
  clusterPath: string,
): Promise<readonly string[]> {
  const names = await storedIfPresent("List WAL archive", storage.files.list(clusterPath)) ?? [];
  return names.filter((name) => SEGMENT_DIRECTORY.test(name)).sort();
}

/** Segments in a 16-digit directory in the order of their names; a complete one hides its partial. */
export async function listSegments(
  storage: Storage,
  directory: string,
): Promise<readonly StoredSegment[]> {
  const complete = new Map<string, boolean>();
  const names = await storedIfPresent("List WAL archive", storage.files.list(directory)) ?? [];
  for (const file of names) {
    const [, name, partial] = SEGMENT_FILE.exec(file) ?? [];
    if (name === undefined) continue;
    complete.set(name, complete.get(name) === true || partial === undefined);
  }
  return [...complete].map(([name, whole]) => ({ name, complete: whole }))
    .sort((a, b) => a.name < b.name ? -1 : 1);
}

/**
 * The last stored segment of the highest timeline up to `timelineMax` (8 hexadecimal digits). That it is there is durable
 * when this resolves.
 */
export async function latestSegment(
  storage: Storage,
  clusterPath: string,
  timelineMax = "FFFFFFFF",
): Promise<StoredSegment | undefined> {
  const directories = await listSegmentDirectories(storage, clusterPath);
  for (const name of directories.toReversed()) {
    if (name.slice(0, 8) > timelineMax) continue;
    const path = `${clusterPath}/${name}`;
    const latest = (await listSegments(storage, path)).at(-1);
    if (latest === undefined) continue;
    // A rename that was seen but never synced could be undone by a crash after we have told of it.
    await stored("Sync WAL archive", storage.files.syncDirectory(path));
    return latest;
  }
  return undefined;
}
