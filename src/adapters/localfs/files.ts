/**
 * The `Files` port on the local file system. Owns the translation of operating system errors (by code) and the rule that
 * "durable" means fsynced: file data with fdatasync, names with an fsync of their directory. Nothing here retries.
 *
 * @module
 */

import { lchown, statfs } from "node:fs/promises";

import { AppError, type FailureKind } from "../../base/failure.ts";
import type { FileHandle, FileInfo, Files, OpenMode } from "../../ports/files.ts";

const FILE_PERMISSIONS = 0o600;
const DIRECTORY_PERMISSIONS = 0o700;
const MODE_MASK = 0o7777;

const KIND_BY_CODE: Readonly<Record<string, FailureKind>> = {
  ENOENT: "not_found",
  ENOTDIR: "not_found",
  EEXIST: "conflict",
  ENOTEMPTY: "conflict",
  EACCES: "permission",
  EPERM: "permission",
  EROFS: "permission",
  ENOSPC: "exhausted",
  EDQUOT: "exhausted",
};

const HINT_BY_KIND: Partial<Record<FailureKind, string>> = {
  permission: "check owner, mode and mount options of the path",
  exhausted: "free space on the file system, or raise the quota",
};

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string"
    ? error.code
    : "";
}

function translate(action: string, path: string, error: unknown): AppError {
  if (error instanceof AppError) return error;
  const code = codeOf(error);
  const kind = KIND_BY_CODE[code] ?? "repository";
  const hint = HINT_BY_KIND[kind];
  return new AppError(kind, `${action} "${path}"${code === "" ? "" : `: ${code}`}`, {
    cause: error,
    ...(hint === undefined ? {} : { hint }),
  });
}

async function attempt<T>(action: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw translate(action, path, error);
  }
}

function parentOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash <= 0 ? "/" : path.slice(0, slash);
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** A `Deno.FsFile` with explicit positions. Calls on one handle run one after the other: the file has a single cursor. */
class LocalFileHandle implements FileHandle {
  readonly #path: string;
  readonly #file: Deno.FsFile;
  #turn: Promise<void> = Promise.resolve();
  #cursor = 0;
  #closing: Promise<void> | undefined;

  constructor(path: string, file: Deno.FsFile) {
    this.#path = path;
    this.#file = file;
  }

  #exclusively<T>(action: string, work: () => Promise<T>): Promise<T> {
    if (this.#closing !== undefined) {
      const what = `${action} "${this.#path}": the handle is closed`;
      return Promise.reject(new AppError("repository", what));
    }
    const result = this.#turn.then(() => attempt(action, this.#path, work));
    this.#turn = result.then(() => {}, () => {/* the caller of that turn hears of it */});
    return result;
  }

  async #seek(position: number): Promise<void> {
    if (this.#cursor === position) return;
    this.#cursor = await this.#file.seek(position, Deno.SeekMode.Start);
  }

  read(buffer: Uint8Array, position: number): Promise<number> {
    return this.#exclusively("Read file", async () => {
      await this.#seek(position);
      let filled = 0;
      while (filled < buffer.length) {
        const count = await this.#file.read(buffer.subarray(filled));
        if (count === null) break;
        filled += count;
        this.#cursor += count;
      }
      return filled;
    });
  }

  write(bytes: Uint8Array, position: number): Promise<void> {
    return this.#exclusively("Write file", async () => {
      await this.#seek(position);
      for (let written = 0; written < bytes.length;) {
        const count = await this.#file.write(bytes.subarray(written));
        written += count;
        this.#cursor += count;
      }
    });
  }

  sync(): Promise<void> {
    return this.#exclusively("Sync file", () => this.#file.syncData());
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#exclusively("Truncate file", () => this.#file.truncate(sizeBytes));
  }

  size(): Promise<number> {
    return this.#exclusively("Stat file", async () => (await this.#file.stat()).size);
  }

  close(): Promise<void> {
    this.#closing ??= this.#turn.then(() => this.#file.close());
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Opens the `Files` port on the local file system. */
export function openLocalFiles(): Files {
  return new LocalFiles();
}

class LocalFiles implements Files {
  open(path: string, mode: OpenMode, permissions = FILE_PERMISSIONS): Promise<FileHandle> {
    const options: Deno.OpenOptions = mode === "read"
      ? { read: true }
      : mode === "update"
      ? { read: true, write: true }
      : { read: true, write: true, createNew: true, mode: permissions };
    return attempt("Open file", path, async () => {
      return new LocalFileHandle(path, await Deno.open(path, options));
    });
  }

  readFile(path: string): Promise<Uint8Array<ArrayBuffer>> {
    return attempt("Read file", path, () => Deno.readFile(path));
  }

  async writeFileAtomic(
    path: string,
    content: Uint8Array,
    permissions = FILE_PERMISSIONS,
  ): Promise<void> {
    const directory = parentOf(path);
    // The runtime picks a free name (hexadecimal digits) and creates the file with mode 0600.
    const aside = await attempt(
      "Create file",
      path,
      () => Deno.makeTempFile({ dir: directory, prefix: `${nameOf(path)}.tmp.` }),
    );
    try {
      {
        await using file = await this.open(aside, "update");
        await file.write(content, 0);
        await file.sync();
      }
      if (permissions !== FILE_PERMISSIONS) await this.setMode(aside, permissions);
      await this.rename(aside, path);
    } catch (error) {
      await Deno.remove(aside).catch(() => {/* absent, or the first failure says it all */});
      throw error;
    }
    await this.syncDirectory(directory);
  }

  rename(from: string, to: string): Promise<void> {
    return attempt("Rename file", from, () => Deno.rename(from, to));
  }

  remove(path: string): Promise<void> {
    return attempt("Remove", path, () => Deno.remove(path));
  }

  async removeTree(path: string): Promise<void> {
    try {
      await Deno.remove(path, { recursive: true });
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw translate("Remove tree", path, error);
    }
  }

  async makeDirectory(path: string, permissions = DIRECTORY_PERMISSIONS): Promise<void> {
    try {
      await Deno.mkdir(path, { mode: permissions });
    } catch (error) {
      const code = codeOf(error);
      if (code === "ENOENT" && parentOf(path) !== path) {
        await this.makeDirectory(parentOf(path), permissions);
        return await this.makeDirectory(path, permissions);
      }
      if (code !== "EEXIST" || !(await Deno.stat(path)).isDirectory) {
        throw translate("Create directory", path, error);
      }
    }
    // Also when it existed: whoever created it may have died before the fsync.
    await this.syncDirectory(parentOf(path));
  }

  list(path: string): Promise<readonly string[]> {
    return attempt("List directory", path, async () => {
      const names: string[] = [];
      for await (const entry of Deno.readDir(path)) names.push(entry.name);
      return names;
    });
  }

  stat(path: string): Promise<FileInfo> {
    return attempt("Stat", path, async () => {
      const info = await Deno.lstat(path);
      return {
        kind: info.isFile
          ? "file"
          : info.isDirectory
          ? "directory"
          : info.isSymlink
          ? "symlink"
          : "other",
        sizeBytes: info.size,
        mode: (info.mode ?? 0) & MODE_MASK,
        uid: info.uid ?? 0,
        gid: info.gid ?? 0,
        mtimeMs: info.mtime?.getTime() ?? 0,
      };
    });
  }

  syncDirectory(path: string): Promise<void> {
    return attempt("Sync directory", path, async () => {
      using directory = await Deno.open(path, { read: true });
      await directory.sync();
    });
  }

  makeSymlink(target: string, path: string): Promise<void> {
    return attempt("Create symlink", path, () => Deno.symlink(target, path));
  }

  readSymlink(path: string): Promise<string> {
    return attempt("Read symlink", path, () => Deno.readLink(path));
  }

  setMode(path: string, mode: number): Promise<void> {
    return attempt("Set mode of", path, () => Deno.chmod(path, mode));
  }

  setOwner(path: string, uid: number, gid: number): Promise<void> {
    return attempt("Set owner of", path, () => lchown(path, uid, gid));
  }

  setTimes(path: string, mtimeMs: number): Promise<void> {
    const time = new Date(mtimeMs);
    return attempt("Set times of", path, () => Deno.utime(path, time, time));
  }

  space(path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }> {
    return attempt("Measure space of", path, async () => {
      const { bavail, blocks, bsize } = await statfs(path);
      return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
    });
  }
}
