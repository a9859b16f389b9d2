/**
 * Uploads a directory tree as Kopia directory objects while it is being changed: a name that vanishes between listing and
 * reading is counted and left out; a file that grows is read up to the size it had when opened; one that shrinks is
 * stored as short as it was. PostgreSQL repairs all of that from the WAL. Any other failure ends the upload.
 *
 * Directories one after the other, depth first; the files of a directory in parallel. Sockets, pipes and devices are left
 * out, as everybody does.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { utf8 } from "../../base/bytes.ts";
import { AppError, isKind } from "../../base/failure.ts";
import { forEachParallel } from "../../base/for_each_parallel.ts";
import {
  DIRECTORY_PREFIX,
  type DirectoryEntry,
  encodeDirectory,
  sortEntries,
  summarize,
} from "../../codec/kopia/directory.ts";
import type { FileHandle, FileInfo, Files } from "../../ports/files.ts";
import type { ObjectWriter, WrittenObject } from "./object_writer.ts";

/** What to do with a name: store it, leave it out, or (a directory, or a link to one) store it as an empty directory. */
export type Verdict = "keep" | "skip" | "empty";

/** Decides about one name. `path` is relative to the root; `siblings` are all names of its directory, itself included. */
export type Select = (path: string, info: FileInfo, siblings: ReadonlySet<string>) => Verdict;

/** Counts what passes by. */
export interface TreeObserver {
  onBytes(count: number): void;
  /** A file is stored. */
  onFile(): void;
  /** A listed name was gone. */
  onVanished(): void;
}

/** What {@link uploadTree} needs. */
export interface TreeUpload {
  readonly files: Files;
  readonly writer: ObjectWriter;
  readonly select: Select;
  readonly parallelFiles: number;
  readonly observer: TreeObserver;
}

/** As long as a chain of links may be on Linux. */
const LINKS_MAX = 40;

/** Bytes per read. */
const READ_BYTES = 1 << 20;

/** Uploads the tree at `root`; the entry of the root with its summary. The root itself must exist. */
export async function uploadTree(
  upload: TreeUpload,
  root: string,
  options: Waiting,
): Promise<DirectoryEntry> {
  const entry = await uploadDirectory(upload, { root, path: "" }, options);
  if (entry === undefined) {
    throw new AppError("not_found", `Read directory "${root}": it vanished during the upload`);
  }
  return entry;
}

/** Uploads one file under its own name; undefined when it is gone. */
async function uploadFile(
  upload: Pick<TreeUpload, "files" | "writer" | "observer">,
  path: string,
  info: FileInfo,
  options: Waiting,
): Promise<DirectoryEntry | undefined> {
  const { files, writer, observer } = upload;
  const handle = await unlessGone(files.open(path, "read"));
  if (handle === undefined) {
    observer.onVanished();
    return undefined;
  }
  await using _ = handle;
  const object = await writer.write(blocksOf(handle, await handle.size(), observer), options);
  observer.onFile();
  return fileEntry(path, info, object);
}

/** The directory behind a path that may be a symbolic link, or a chain of them. */
export async function resolveDirectory(files: Files, path: string): Promise<string> {
  let current = path.replace(/(?<=.)\/+$/, "");
  for (let links = 0; links < LINKS_MAX; links++) {
    const { kind } = await files.stat(current);
    if (kind !== "symlink") return current;
    const target = (await files.readSymlink(current)).replace(/(?<=.)\/+$/, "");
    const parent = current.slice(0, current.lastIndexOf("/"));
    current = target.startsWith("/") ? target : `${parent}/${target}`;
  }
  throw new AppError("source", `Read directory "${path}": more than ${LINKS_MAX} symbolic links`);
}

/** Sums what {@link uploadTree} would upload now. */
export async function measureTree(
  upload: Pick<TreeUpload, "files" | "select">,
  root: string,
  options: Waiting,
): Promise<{ bytes: number; files: number }> {
  const total = { bytes: 0, files: 0 };
  const pending = [""];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    options.signal.throwIfAborted();
    const names = new Set(await unlessGone(upload.files.list(join(root, path))) ?? []);
    for (const name of names) {
      const child = join(path, name);
      const info = await unlessGone(upload.files.stat(join(root, child)));
      if (info === undefined || upload.select(child, info, names) !== "keep") continue;
      if (info.kind === "directory") pending.push(child);
      if (info.kind !== "file") continue;
      total.bytes += info.sizeBytes;
      total.files++;
    }
  }
  return total;
}

interface Place {
  readonly root: string;
  readonly path: string;
}

async function uploadDirectory(
  upload: TreeUpload,
  place: Place,
  options: Waiting,
): Promise<DirectoryEntry | undefined> {
  const { files, parallelFiles, observer } = upload;
  const whole = join(place.root, place.path);
  const info = await unlessGone(files.stat(whole));
  const names = info === undefined ? undefined : await unlessGone(files.list(whole));
  if (info === undefined || names === undefined) {
    observer.onVanished();
    return undefined;
  }
  const siblings = new Set(names);
  const entries: DirectoryEntry[] = [];
  const subdirectories: string[] = [];
  await forEachParallel(
    names,
    { signal: options.signal, parallel: parallelFiles },
    async (name, signal) => {
      refuseUnprintable(whole, name);
      const path = join(place.path, name);
      const child = await unlessGone(files.stat(join(place.root, path)));
      if (child === undefined) return observer.onVanished();
      const verdict = upload.select(path, child, siblings);
      if (verdict === "skip" || child.kind === "other") return;
      if (verdict === "empty") {
        entries.push(
          await storeDirectory(upload, { name, info: emptied(child), entries: [] }, { signal }),
        );
        return;
      }
      if (child.kind === "directory") {
        subdirectories.push(path);
        return;
      }
      const entry = child.kind === "symlink"
        ? await uploadSymlink(upload, join(place.root, path), child, { signal })
        : await uploadFile(upload, join(place.root, path), child, { signal });
      if (entry !== undefined) entries.push(entry);
    },
  );
  for (const path of subdirectories) {
    const entry = await uploadDirectory(upload, { root: place.root, path }, options);
    if (entry !== undefined) entries.push(entry);
  }
  return await storeDirectory(upload, { name: baseName(whole), info, entries }, options);
}

async function uploadSymlink(
  upload: TreeUpload,
  path: string,
  info: FileInfo,
  options: Waiting,
): Promise<DirectoryEntry | undefined> {
  const target = await unlessGone(upload.files.readSymlink(path));
  if (target === undefined) {
    upload.observer.onVanished();
    return undefined;
  }
  const object = await upload.writer.write([utf8(target)], options);
  return { ...fileEntry(path, info, object), kind: "symlink" };
}

async function storeDirectory(
  upload: TreeUpload,
  directory: {
    readonly name: string;
    readonly info: FileInfo;
    readonly entries: readonly DirectoryEntry[];
  },
  options: Waiting,
): Promise<DirectoryEntry> {
  const { name, info } = directory;
  const entries = sortEntries(directory.entries);
  const mtimeNs = nanoseconds(info.mtimeMs);
  const summary = summarize(entries, mtimeNs);
  const object = await upload.writer.write([encodeDirectory({ entries, summary })], {
    signal: options.signal,
    prefix: DIRECTORY_PREFIX,
  });
  return {
    name,
    kind: "directory",
    mode: info.mode,
    sizeBytes: 0,
    mtimeNs,
    uid: info.uid,
    gid: info.gid,
    objectId: object.objectId,
    summary,
  };
}

function fileEntry(path: string, info: FileInfo, object: WrittenObject): DirectoryEntry {
  return {
    name: baseName(path),
    kind: "file",
    mode: info.mode,
    sizeBytes: object.lengthBytes,
    mtimeNs: nanoseconds(info.mtimeMs),
    uid: info.uid,
    gid: info.gid,
    objectId: object.objectId,
    summary: undefined,
  };
}

/** Blocks of a file up to `sizeBytes`, each valid until the next is asked for. */
async function* blocksOf(
  handle: FileHandle,
  sizeBytes: number,
  observer: TreeObserver,
): AsyncGenerator<Uint8Array, void, undefined> {
  const buffer = new Uint8Array(Math.min(READ_BYTES, sizeBytes));
  let position = 0;
  while (position < sizeBytes) {
    const count = await handle.read(buffer.subarray(0, sizeBytes - position), position);
    if (count === 0) return; // it shrank
    position += count;
    observer.onBytes(count);
    yield buffer.subarray(0, count);
  }
}

/** The mode of a link says nothing about the directory it stands for. */
function emptied(info: FileInfo): FileInfo {
  return info.kind === "directory" ? info : { ...info, kind: "directory", mode: 0o700 };
}

async function unlessGone<T>(attempt: Promise<T>): Promise<T | undefined> {
  try {
    return await attempt;
  } catch (error) {
    if (isKind(error, "not_found")) return undefined;
    throw error;
  }
}

/** A name that is not UTF-8 arrives with a replacement character and could not be opened: it must not be lost silently. */
function refuseUnprintable(directory: string, name: string): void {
  if (!name.includes("\ufffd")) return;
  throw new AppError("source", `Read directory "${directory}": the name "${name}" is not UTF-8`, {
    hint: "remove or rename the file; PostgreSQL makes no such names",
  });
}

function nanoseconds(ms: number): bigint {
  return BigInt(Math.trunc(ms)) * 1_000_000n;
}

function join(directory: string, name: string): string {
  if (directory === "" || name === "") return directory + name;
  return directory.endsWith("/") ? directory + name : `${directory}/${name}`;
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
