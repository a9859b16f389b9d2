/**
 * A {@link BlobStore} in a directory, laid out as Kopia's filesystem backend does it (reference/kopia.md 3.10), so that a
 * stock kopia opens it in place: file name = id + `.f`, long ids sharded by the rules of the file `.shards`, written aside
 * as `<file>.tmp.<16 hex>` and renamed. Beyond Kopia, a put is durable when it resolves: the file, its directory, and each
 * shard directory with its parents are fsynced, so that after a power loss no index can survive a pack that it names.
 *
 * Left-over temporary files are invisible to listings and left alone.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { type Bytes, fromUtf8, toHex, utf8 } from "../../base/bytes.ts";
import type { Random } from "../../base/clock.ts";
import { AppError, isKind } from "../../base/failure.ts";
import type { BlobInfo, BlobStore } from "../../ports/blob_store.ts";
import type { Files } from "../../ports/files.ts";
import { lockFile } from "./lock.ts";
import {
  decodeShards,
  encodeShards,
  NEW_SHARDS,
  OLD_SHARDS,
  shardPath,
  type Shards,
} from "./shards.ts";

const SUFFIX = ".f";
const SHARDS_FILE = ".shards";
const LOCK_FILE = "klio.lock";
const FILE_PERMISSIONS = 0o600;
const DIRECTORY_PERMISSIONS = 0o700;
const ID = /^[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$/;

/** What a {@link LocalBlobStore} needs. */
export interface LocalBlobStoreDeps {
  readonly files: Files;
  readonly random: Random;
  /** Absolute path; created when absent. */
  readonly root: string;
}

/** Opens the store in `root`. One without shard rules gets them: those of new stores when it holds no blob. */
export async function openLocalBlobStore(
  deps: LocalBlobStoreDeps,
  options: Waiting,
): Promise<BlobStore> {
  const { files, root } = deps;
  options.signal.throwIfAborted();
  await files.makeDirectory(root, DIRECTORY_PERMISSIONS);
  const path = `${root}/${SHARDS_FILE}`;
  let content: Uint8Array | undefined;
  try {
    content = await files.readFile(path);
  } catch (error) {
    if (!isKind(error, "not_found")) throw error;
  }
  if (content !== undefined) {
    return new LocalBlobStore(deps, decodeShards(fromUtf8(content), path));
  }
  // A store of somebody always has short ids in its root; `lost+found` and left-over temporary files do not count.
  const isUsed = (await files.list(root)).some((name) => name.endsWith(SUFFIX));
  const shards = isUsed ? OLD_SHARDS : NEW_SHARDS;
  await files.writeFileAtomic(path, utf8(encodeShards(shards)), FILE_PERMISSIONS);
  return new LocalBlobStore(deps, shards);
}

class LocalBlobStore implements BlobStore {
  readonly description: string;
  readonly #files: Files;
  readonly #random: Random;
  readonly #root: string;
  readonly #shards: Shards;
  /** Directories that this process has made durable; one that merely exists may be a crash's left-over. */
  readonly #durable = new Set<string>();

  constructor(deps: LocalBlobStoreDeps, shards: Shards) {
    this.#files = deps.files;
    this.#random = deps.random;
    this.#root = deps.root;
    this.#shards = shards;
    this.description = `directory ${deps.root}`;
    this.#durable.add(deps.root);
  }

  async put(id: string, parts: readonly Uint8Array[], options: Waiting): Promise<void> {
    options.signal.throwIfAborted();
    const files = this.#files;
    const { directories, path } = this.#place(id);
    for (const directory of directories) {
      if (this.#durable.has(directory)) continue;
      await files.makeDirectory(directory, DIRECTORY_PERMISSIONS);
      this.#durable.add(directory);
    }
    const directory = parentOf(path);
    const aside = `${path}.tmp.${toHex(this.#random.bytes(8))}`;
    try {
      await this.#writeDurably(aside, parts, options);
      options.signal.throwIfAborted();
      await files.rename(aside, path);
    } catch (error) {
      await files.remove(aside).catch(() => {/* the first failure is what counts */});
      throw error;
    }
    await files.syncDirectory(directory);
  }

  async get(
    id: string,
    options: Waiting & { readonly offset?: number; readonly length?: number },
  ): Promise<Bytes> {
    options.signal.throwIfAborted();
    await using file = await this.#files.open(this.#place(id).path, "read");
    const sizeBytes = await file.size();
    const offset = options.offset ?? 0;
    const length = options.length ?? sizeBytes - offset;
    if (offset < 0 || length < 0 || offset + length > sizeBytes) {
      throw new AppError(
        "corruption",
        `Read ${length} bytes at ${offset} of blob "${id}": it has ${sizeBytes}`,
      );
    }
    const bytes = new Uint8Array(length);
    const count = await file.read(bytes, offset);
    if (count !== length) {
      throw new AppError(
        "corruption",
        `Read ${length} bytes at ${offset} of blob "${id}": got ${count}`,
      );
    }
    return bytes;
  }

  async stat(id: string, options: Waiting): Promise<BlobInfo> {
    options.signal.throwIfAborted();
    const { sizeBytes, mtimeMs } = await this.#files.stat(this.#place(id).path);
    return { id, sizeBytes, modifiedMs: mtimeMs };
  }

  list(prefix: string, options: Waiting): AsyncIterable<BlobInfo> {
    return this.#walk({ directory: this.#root, start: "", prefix }, options);
  }

  async remove(id: string, options: Waiting): Promise<void> {
    options.signal.throwIfAborted();
    const { path } = this.#place(id);
    try {
      await this.#files.remove(path);
    } catch (error) {
      if (isKind(error, "not_found")) return;
      throw error;
    }
    await this.#files.syncDirectory(parentOf(path));
  }

  async lock(options: Waiting): Promise<AsyncDisposable> {
    options.signal.throwIfAborted();
    return await lockFile(`${this.#root}/${LOCK_FILE}`);
  }

  /** The file of a blob, and the shard directories above it, outermost first. */
  #place(id: string): { readonly directories: readonly string[]; readonly path: string } {
    if (!ID.test(id)) {
      throw new AppError("protocol", `Use blob id "${id}": wanted letters, digits, "_", "-", "."`);
    }
    const { directories: names, name } = shardPath(this.#shards, id);
    const directories: string[] = [];
    let parent = this.#root;
    for (const directory of names) {
      parent = `${parent}/${directory}`;
      directories.push(parent);
    }
    return { directories, path: `${parent}/${name}${SUFFIX}` };
  }

  async #writeDurably(
    path: string,
    parts: readonly Uint8Array[],
    options: Waiting,
  ): Promise<void> {
    await using file = await this.#files.open(path, "create_new", FILE_PERMISSIONS);
    let offset = 0;
    for (const part of parts) {
      options.signal.throwIfAborted();
      await file.write(part, offset);
      offset += part.length;
    }
    await file.sync();
  }

  /** Blobs below `directory`, whose ids begin with `start`. What vanishes meanwhile is not reported. */
  async *#walk(
    at: { readonly directory: string; readonly start: string; readonly prefix: string },
    options: Waiting,
  ): AsyncGenerator<BlobInfo> {
    const { directory, start, prefix } = at;
    for (const name of await this.#present(this.#files.list(directory)) ?? []) {
      options.signal.throwIfAborted();
      const path = `${directory}/${name}`;
      if (name.endsWith(SUFFIX)) {
        const id = start + name.slice(0, -SUFFIX.length);
        if (!id.startsWith(prefix)) continue;
        const info = await this.#present(this.#files.stat(path));
        if (info?.kind !== "file") continue;
        yield { id, sizeBytes: info.sizeBytes, modifiedMs: info.mtimeMs };
      } else if (!name.includes(".")) {
        const inner = start + name;
        if (!inner.startsWith(prefix) && !prefix.startsWith(inner)) continue;
        const info = await this.#present(this.#files.stat(path));
        if (info?.kind !== "directory") continue;
        yield* this.#walk({ directory: path, start: inner, prefix }, options);
      }
    }
  }

  async #present<T>(wanted: Promise<T>): Promise<T | undefined> {
    try {
      return await wanted;
    } catch (error) {
      if (isKind(error, "not_found")) return undefined;
      throw error;
    }
  }
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}
