/**
 * The file system as klio needs it: every operation says when its effect is durable. Implementations: `adapters/localfs`
 * (the real one) and the in-memory one of `tests/support`, which can crash between any two writes; both pass the same
 * contract suite.
 *
 * Paths are absolute, separated by `/`. Errors: `not_found` (ENOENT, ENOTDIR), `conflict` (EEXIST, ENOTEMPTY),
 * `permission` (EACCES, EPERM, EROFS), `exhausted` (ENOSPC, EDQUOT), anything else `repository`.
 *
 * @module
 */

/** What `lstat` tells. Times are milliseconds since the epoch (Deno truncates to that, see reference 2.7). */
export interface FileInfo {
  readonly kind: "file" | "directory" | "symlink" | "other";
  readonly sizeBytes: number;
  /** Permission bits with setuid, setgid and sticky: 0o0000 to 0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeMs: number;
}

/** An open file. All positions are explicit; there is no shared cursor. */
export interface FileHandle extends AsyncDisposable {
  /** Reads up to `buffer.length` bytes at `position` into `buffer`; the count, less only at the end of the file. */
  read(buffer: Uint8Array, position: number): Promise<number>;
  /** Writes all of `bytes` (borrowed until it resolves) at `position`. Durable only after `sync`. */
  write(bytes: Uint8Array, position: number): Promise<void>;
  /** Makes everything written so far durable (fdatasync). */
  sync(): Promise<void>;
  truncate(sizeBytes: number): Promise<void>;
  size(): Promise<number>;
  /** Idempotent; never throws. */
  close(): Promise<void>;
}

/** How to open a file. */
export type OpenMode =
  /** Must exist. */
  | "read"
  /** Read and write; must exist. */
  | "update"
  /** Read and write; must not exist (`conflict`). */
  | "create_new";

/** The file system port. */
export interface Files {
  open(path: string, mode: OpenMode, permissions?: number): Promise<FileHandle>;
  /** Whole content, owned by the caller. */
  readFile(path: string): Promise<Uint8Array<ArrayBuffer>>;
  /** Writes aside (`<path>.tmp.<random>`), fsyncs, renames over `path`, fsyncs the directory: durable when it resolves. */
  writeFileAtomic(path: string, content: Uint8Array, permissions?: number): Promise<void>;
  /** Replaces `to` atomically. Durable only after `syncDirectory` of the parents. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file, symlink or empty directory; `not_found` when absent. */
  remove(path: string): Promise<void>;
  /** Removes a tree; absent is success. */
  removeTree(path: string): Promise<void>;
  /** Creates a directory and its missing parents; existing is success. Durable (parents fsynced) when it resolves. */
  makeDirectory(path: string, permissions?: number): Promise<void>;
  /** Names in a directory, unordered. */
  list(path: string): Promise<readonly string[]>;
  /** Does not follow symlinks. */
  stat(path: string): Promise<FileInfo>;
  /** Makes creations, renames and removals in a directory durable. */
  syncDirectory(path: string): Promise<void>;
  makeSymlink(target: string, path: string): Promise<void>;
  readSymlink(path: string): Promise<string>;
  setMode(path: string, mode: number): Promise<void>;
  setOwner(path: string, uid: number, gid: number): Promise<void>;
  setTimes(path: string, mtimeMs: number): Promise<void>;
  /** Free bytes for an unprivileged writer on the file system that holds `path`, and its size. */
  space(path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }>;
}
