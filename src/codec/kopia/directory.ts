/**
 * Directory objects (content prefix `k`): JSON, byte for byte as stock kopia writes it, so that equal trees share their
 * objects (reference/kopia.md 2.5). Modes are POSIX bits here and Go's bits in the document.
 *
 * @module
 */

import { type Bytes, utf8 } from "../../base/bytes.ts";
import { JsonReader } from "../../base/json_reader.ts";
import { compareCodePoints, formatGoTime, goJson, type GoValue, parseGoTime } from "../go_json.ts";

/** Content prefix of directory objects. */
export const DIRECTORY_PREFIX = "k";

/** What a tree holds, all levels. */
export interface DirectorySummary {
  readonly sizeBytes: number;
  readonly files: number;
  readonly symlinks: number;
  /** The directory itself included. */
  readonly directories: number;
  /** Newest modification in the tree; of an empty directory its own. Nanoseconds since the epoch. */
  readonly maxTimeNs: bigint;
  /** Not empty: the snapshot was cut short, and why. */
  readonly incomplete: string;
  readonly failed: number;
}

/** One name in a directory. */
export interface DirectoryEntry {
  readonly name: string;
  readonly kind: "file" | "directory" | "symlink";
  /** 0o0000 to 0o7777. */
  readonly mode: number;
  /** 0 for a directory, length of the target for a symlink. */
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  readonly uid: number;
  readonly gid: number;
  readonly objectId: string;
  /** Of directories. */
  readonly summary: DirectorySummary | undefined;
}

/** A decoded directory. */
export interface Directory {
  readonly entries: readonly DirectoryEntry[];
  readonly summary: DirectorySummary;
}

const STREAM = "kopia:directory";
const TYPES = { file: "f", directory: "d", symlink: "s" } as const;

/** Directories first, then the rest, each by the bytes of their names. */
export function sortEntries(entries: readonly DirectoryEntry[]): DirectoryEntry[] {
  return entries.toSorted((a, b) =>
    Number(b.kind === "directory") - Number(a.kind === "directory") ||
    compareCodePoints(a.name, b.name)
  );
}

/** The summary of a directory with these entries; `ownTimeNs` is its own modification time. */
export function summarize(
  entries: readonly DirectoryEntry[],
  ownTimeNs: bigint,
): DirectorySummary {
  let [sizeBytes, files, symlinks, directories, failed] = [0, 0, 0, 1, 0];
  let maxTimeNs = entries.length === 0 ? ownTimeNs : 0n;
  for (const { kind, sizeBytes: size, mtimeNs, summary } of entries) {
    if (mtimeNs > maxTimeNs) maxTimeNs = mtimeNs;
    if (kind === "symlink") symlinks++;
    if (kind === "file") {
      files++;
      sizeBytes += size;
    }
    if (kind !== "directory" || summary === undefined) continue;
    sizeBytes += summary.sizeBytes;
    files += summary.files;
    symlinks += summary.symlinks;
    directories += summary.directories;
    failed += summary.failed;
    if (summary.maxTimeNs > maxTimeNs) maxTimeNs = summary.maxTimeNs;
  }
  return { sizeBytes, files, symlinks, directories, maxTimeNs, incomplete: "", failed };
}

/** The directory object, owned. Entries are written in the given order: see {@link sortEntries}. */
export function encodeDirectory(directory: Directory): Bytes {
  const entries = directory.entries.map(entryJson);
  const document = {
    stream: STREAM,
    entries: entries.length === 0 ? null : entries, // a nil slice in Go
    summary: summaryJson(directory.summary),
  };
  return utf8(goJson(document) + "\n");
}

/** Reads a directory object. Throws `corruption`. */
export function decodeDirectory(document: Uint8Array): Directory {
  const json = JsonReader.parse(document, { what: "Read a directory object", kind: "corruption" });
  if (json.string("stream") !== STREAM) json.fail("stream", `"${STREAM}"`);
  return {
    entries: json.objects("entries").map(readEntry),
    summary: readSummary(json.object("summary")),
  };
}

/** An entry as Go's `snapshot.DirEntry`; also the root of a snapshot. */
export function entryJson(entry: DirectoryEntry): GoValue {
  return {
    name: omitEmpty(entry.name),
    type: TYPES[entry.kind],
    mode: entry.mode === 0 ? undefined : `0${goMode(entry.mode).toString(8)}`,
    size: omitZero(entry.sizeBytes),
    mtime: entry.mtimeNs === 0n ? undefined : formatGoTime(entry.mtimeNs),
    uid: omitZero(entry.uid),
    gid: omitZero(entry.gid),
    obj: entry.objectId,
    summ: entry.summary === undefined ? undefined : summaryJson(entry.summary),
  };
}

/** The reverse of {@link entryJson}. Throws `corruption`. */
export function readEntry(json: JsonReader): DirectoryEntry {
  const type = json.string("type", "");
  const kind = type === "f"
    ? "file"
    : type === "d"
    ? "directory"
    : type === "s"
    ? "symlink"
    : json.fail("type", 'one of "f", "d" and "s"');
  return {
    name: json.string("name", ""),
    kind,
    mode: posixMode(readMode(json)),
    sizeBytes: readCount(json, "size", 0),
    mtimeNs: json.has("mtime") ? readTime(json, "mtime") : 0n,
    uid: readCount(json, "uid", 0),
    gid: readCount(json, "gid", 0),
    objectId: json.string("obj"),
    summary: json.has("summ") ? readSummary(json.object("summ")) : undefined,
  };
}

function summaryJson(summary: DirectorySummary): GoValue {
  return {
    size: summary.sizeBytes,
    files: summary.files,
    symlinks: summary.symlinks,
    dirs: summary.directories,
    maxTime: formatGoTime(summary.maxTimeNs),
    incomplete: omitEmpty(summary.incomplete),
    numFailed: summary.failed,
  };
}

function readSummary(json: JsonReader): DirectorySummary {
  return {
    sizeBytes: readCount(json, "size"),
    files: readCount(json, "files"),
    symlinks: readCount(json, "symlinks"),
    directories: readCount(json, "dirs"),
    maxTimeNs: readTime(json, "maxTime"),
    incomplete: json.string("incomplete", ""),
    failed: readCount(json, "numFailed", 0),
  };
}

/** A count or size: not negative. */
function readCount(json: JsonReader, key: string, fallback?: number): number {
  const value = json.integer(key, fallback);
  if (value < 0) json.fail(key, "at least 0");
  return value;
}

/** A time inside a document that should be whole: a malformed one is `corruption`. */
export function readTime(json: JsonReader, key: string): bigint {
  const text = json.string(key);
  try {
    return parseGoTime(text);
  } catch {
    return json.fail(key, "an RFC 3339 time");
  }
}

/** Octal by a leading 0 as stock writes it; Go's reader would accept other bases as well, no writer uses them. */
function readMode(json: JsonReader): number {
  const text = json.string("mode", "0");
  if (!/^0[0-7]{0,11}$/.test(text)) json.fail("mode", "an octal number");
  return Number.parseInt(text, 8);
}

const GO_SETUID = 1 << 23;
const GO_SETGID = 1 << 22;
const GO_STICKY = 1 << 20;

function goMode(mode: number): number {
  return (mode & 0o777) | ((mode & 0o4000) === 0 ? 0 : GO_SETUID) |
    ((mode & 0o2000) === 0 ? 0 : GO_SETGID) | ((mode & 0o1000) === 0 ? 0 : GO_STICKY);
}

function posixMode(mode: number): number {
  return (mode & 0o777) | ((mode & GO_SETUID) === 0 ? 0 : 0o4000) |
    ((mode & GO_SETGID) === 0 ? 0 : 0o2000) | ((mode & GO_STICKY) === 0 ? 0 : 0o1000);
}

function omitZero(value: number): number | undefined {
  return value === 0 ? undefined : value;
}

function omitEmpty(value: string): string | undefined {
  return value === "" ? undefined : value;
}
