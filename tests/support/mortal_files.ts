/**
 * The file system as one process sees it: calls take time, and after the process was killed nothing it still does has any
 * effect. What it had done before stays, as in the page cache of a real machine.
 *
 * @module
 */

import { AppError } from "../../src/base/failure.ts";
import type { FileHandle, Files, OpenMode } from "../../src/ports/files.ts";

/** Calls that wait for the disk. */
export type SlowCall = "sync" | "syncDirectory" | "other";

/** What a process's view is made of. */
export interface MortalFilesOptions {
  readonly files: Files;
  /** Resolves when the disk has got to it. */
  readonly wait: (call: SlowCall) => Promise<void>;
  readonly isDead: () => boolean;
  /** Called when a call fails: perhaps the machine has crashed. */
  readonly onFailure: () => void;
  /** Tests of the tests: calls that only pretend. */
  readonly pretended?: SlowCall;
}

/** See the module comment. */
export function mortalFiles(options: MortalFilesOptions): Files {
  const { files, wait, isDead, onFailure, pretended } = options;
  const run = async <T>(call: SlowCall, work: () => Promise<T>): Promise<T> => {
    if (isDead()) throw dead();
    await wait(call);
    if (isDead()) throw dead();
    try {
      return await work();
    } catch (error) {
      onFailure();
      throw error;
    }
  };
  const plain = <T>(work: () => Promise<T>) => run("other", work);
  const syncing = (call: SlowCall, work: () => Promise<void>) =>
    run(call, call === pretended ? () => Promise.resolve() : work);
  const wrap = (handle: FileHandle): FileHandle => ({
    read: (buffer, position) => plain(() => handle.read(buffer, position)),
    write: (bytes, position) => plain(() => handle.write(bytes, position)),
    sync: () => syncing("sync", () => handle.sync()),
    truncate: (sizeBytes) => plain(() => handle.truncate(sizeBytes)),
    size: () => plain(() => handle.size()),
    close: () => handle.close(),
    [Symbol.asyncDispose]: () => handle.close(),
  });
  return {
    open: async (path: string, mode: OpenMode, permissions?: number) =>
      wrap(await plain(() => files.open(path, mode, permissions))),
    readFile: (path) => plain(() => files.readFile(path)),
    writeFileAtomic: (path, content, permissions) =>
      run("sync", () => files.writeFileAtomic(path, content, permissions)),
    rename: (from, to) => plain(() => files.rename(from, to)),
    remove: (path) => plain(() => files.remove(path)),
    removeTree: (path) => plain(() => files.removeTree(path)),
    makeDirectory: (path, permissions) => plain(() => files.makeDirectory(path, permissions)),
    list: (path) => plain(() => files.list(path)),
    stat: (path) => plain(() => files.stat(path)),
    syncDirectory: (path) => syncing("syncDirectory", () => files.syncDirectory(path)),
    makeSymlink: (target, path) => plain(() => files.makeSymlink(target, path)),
    readSymlink: (path) => plain(() => files.readSymlink(path)),
    setMode: (path, mode) => plain(() => files.setMode(path, mode)),
    setOwner: (path, uid, gid) => plain(() => files.setOwner(path, uid, gid)),
    setTimes: (path, mtimeMs) => plain(() => files.setTimes(path, mtimeMs)),
    space: (path) => plain(() => files.space(path)),
  };
}

function dead(): AppError {
  return new AppError("repository", "The process is dead");
}
