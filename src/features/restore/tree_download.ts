/**
 * Writes a stored tree into an empty directory: contents verified by the object reader, sizes by us, every file and every
 * directory synced. Names come from a repository and are not trusted: nothing may leave the target directory, and
 * nothing that exists is followed or overwritten.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { fromUtf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { forEachParallel } from "../../base/for_each_parallel.ts";
import { decodeDirectory, type DirectoryEntry } from "../../codec/kopia/directory.ts";
import type { Files } from "../../ports/files.ts";
import type { ObjectReader } from "../objects/mod.ts";

/** Who gets the files. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** What to do with an entry of the tree: write it, leave it out, or (a directory) write it without its contents. */
export type RestoreVerdict = "keep" | "skip" | "empty";

/** What {@link downloadTree} needs. */
export interface TreeDownload {
  readonly files: Files;
  readonly reader: ObjectReader;
  readonly parallelFiles: number;
  readonly owner: Owner | undefined;
  /** `path` is relative to the root. */
  readonly select: (path: string, entry: DirectoryEntry) => RestoreVerdict;
  readonly onBytes: (count: number) => void;
  readonly onFile: () => void;
}

/** A directory of a million files. */
const DIRECTORY_BYTES_MAX = 256 << 20;
/** `PATH_MAX`. */
const LINK_BYTES_MAX = 4096;

/** Writes the tree under `root`, which exists and is empty or does not exist. */
export async function downloadTree(
  download: TreeDownload,
  entry: DirectoryEntry,
  root: string,
  options: Waiting,
): Promise<void> {
  if (entry.kind !== "directory") {
    throw new AppError(
      "corruption",
      `Restore directory "${root}": the snapshot holds a ${entry.kind}`,
    );
  }
  await writeDirectory(download, entry, { root, path: "" }, options);
}

/** Owner, mode and time of a file or directory. */
export async function setAttributes(
  download: Pick<TreeDownload, "files" | "owner">,
  path: string,
  entry: Pick<DirectoryEntry, "mode" | "mtimeNs">,
): Promise<void> {
  const { files, owner } = download;
  // The owner first: changing it clears the setuid and setgid bits.
  if (owner !== undefined) await files.setOwner(path, owner.uid, owner.gid);
  await files.setMode(path, entry.mode);
  await files.setTimes(path, Number(entry.mtimeNs / 1_000_000n));
}

interface Place {
  readonly root: string;
  readonly path: string;
}

async function writeDirectory(
  download: TreeDownload,
  entry: DirectoryEntry,
  place: Place,
  options: Waiting,
): Promise<void> {
  const { files, parallelFiles, select } = download;
  const directory = place.path === "" ? place.root : `${place.root}/${place.path}`;
  await files.makeDirectory(directory, 0o700);
  const entries = await readEntries(download.reader, entry, directory, options);
  const directories: Array<{ readonly entry: DirectoryEntry; readonly path: string }> = [];
  await forEachParallel(
    entries,
    { signal: options.signal, parallel: parallelFiles },
    async (child, signal) => {
      const path = place.path === "" ? child.name : `${place.path}/${child.name}`;
      const verdict = select(path, child);
      if (verdict === "skip") return;
      const whole = `${directory}/${child.name}`;
      switch (child.kind) {
        case "file":
          await writeFile(download, child, whole, { signal });
          break;
        case "symlink":
          await writeSymlink(download, child, whole, { signal });
          break;
        case "directory":
          if (verdict === "keep") {
            directories.push({ entry: child, path });
          } else {
            await files.makeDirectory(whole, 0o700);
            await setAttributes(download, whole, child);
          }
      }
    },
  );
  for (const child of directories) {
    await writeDirectory(download, child.entry, { root: place.root, path: child.path }, options);
  }
  await setAttributes(download, directory, entry);
  await files.syncDirectory(directory);
}

async function readEntries(
  reader: ObjectReader,
  entry: DirectoryEntry,
  directory: string,
  options: Waiting,
): Promise<readonly DirectoryEntry[]> {
  const document = await reader.readAll(entry.objectId, {
    signal: options.signal,
    sizeBytesMax: DIRECTORY_BYTES_MAX,
  });
  const { entries } = decodeDirectory(document);
  const names = new Set<string>();
  for (const { name } of entries) {
    const valid = name !== "" && name !== "." && name !== ".." && !/[/\0]/.test(name);
    // Twice the same name could be a link and then a file written through it.
    if (!valid || names.has(name)) {
      throw new AppError(
        "corruption",
        `Restore directory "${directory}": name "${name}" is ${
          valid ? "there twice" : "not allowed"
        }`,
      );
    }
    names.add(name);
  }
  return entries;
}

async function writeFile(
  download: TreeDownload,
  entry: DirectoryEntry,
  path: string,
  options: Waiting,
): Promise<void> {
  let position = 0;
  {
    await using handle = await download.files.open(path, "create_new", 0o600);
    for await (const block of download.reader.read(entry.objectId, options)) {
      options.signal.throwIfAborted();
      await handle.write(block, position);
      position += block.length;
      download.onBytes(block.length);
    }
    await handle.sync();
  }
  if (position !== entry.sizeBytes) {
    throw new AppError(
      "corruption",
      `Restore file "${path}": ${position} bytes, wanted ${entry.sizeBytes}`,
    );
  }
  await setAttributes(download, path, entry);
  download.onFile();
}

async function writeSymlink(
  download: TreeDownload,
  entry: DirectoryEntry,
  path: string,
  options: Waiting,
): Promise<void> {
  const target = await download.reader.readAll(entry.objectId, {
    signal: options.signal,
    sizeBytesMax: LINK_BYTES_MAX,
  });
  await download.files.makeSymlink(fromUtf8(target), path);
}
