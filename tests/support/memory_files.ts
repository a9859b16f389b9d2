/**
 * `Files` in memory with a model of durability, for crash and fault tests. Content and names are durable only after
 * `sync` and `syncDirectory`. {@link MemoryFiles.afterCrash} gives what a machine would find after losing power: everything
 * durable plus ANY subset (by seed) of the rest, where an unsynced write may also be torn. A failed `sync` behaves as on
 * Linux: the pages count as clean, so a later successful `sync` does not save what the failed one lost.
 *
 * `operations` counts every call that can fail; composite calls count their steps. The counter addresses crashes and faults.
 *
 * @module
 */

import { AppError } from "../../src/base/failure.ts";
import type { FileHandle, FileInfo, Files, OpenMode } from "../../src/ports/files.ts";
import {
  applyNames,
  type Attributes,
  type Change,
  type DirectoryNode,
  type FileNode,
  Image,
  type NameChange,
  type Node,
  surviveDirectory,
  type SymlinkNode,
} from "./memory_disk.ts";
import { type Fault, FaultPlan, type Operation } from "./memory_faults.ts";
import { SeededRandom } from "./seeded_random.ts";

/** See the module comment. */
export class MemoryFiles implements Files {
  #root: DirectoryNode;
  readonly #plan = new FaultPlan();
  #asideCount = 0;
  #nowMs = 1_700_000_000_000;
  /** Answer of `space`. */
  freeBytes = 2 ** 40;

  constructor() {
    this.#root = this.#newDirectory(0o700);
  }

  /** Operations so far. */
  get operations(): number {
    return this.#plan.operations;
  }

  /** Sets the one active fault. */
  setFault(rule: Fault): void {
    this.#plan.setFault(rule);
  }

  /** Operations succeed again. */
  clearFault(): void {
    this.#plan.setFault(undefined);
  }

  /** Loses power in operation number `operation` (the first is 1): it and all later ones reject with `repository`. */
  crashAt(operation: number): void {
    this.#plan.crashAt = operation;
  }

  /** True after the crash. */
  get crashed(): boolean {
    return this.#plan.crashed;
  }

  /** Ends this machine now and boots the next one from what the seed lets survive. */
  afterCrash(seed: number): MemoryFiles {
    this.#plan.crashed = true;
    const source = new SeededRandom(seed);
    const random = () => source.float();
    // Some seeds keep all or nothing: those are the two states that plain reasoning considers.
    const keepShare = [0, 1, 0.5, random()][Math.floor(random() * 4)] ?? 0;
    const keep = () => random() < keepShare;
    const next = new MemoryFiles();
    next.#nowMs = this.#nowMs;
    next.#asideCount = this.#asideCount; // a new process draws other random names
    next.#root = surviveDirectory(this.#root, keep, random, new Map());
    return next;
  }

  #newDirectory(mode: number): DirectoryNode {
    return {
      kind: "directory",
      mode,
      uid: 0,
      gid: 0,
      mtimeMs: this.#nowMs++,
      current: new Map(),
      durable: new Map(),
      pending: [],
    };
  }

  #find(path: string): Node | undefined {
    let node: Node = this.#root;
    for (const name of path.split("/")) {
      if (name === "") continue;
      if (node.kind === "symlink") {
        const target = this.#find(node.target);
        if (target === undefined) return undefined;
        node = target;
      }
      if (node.kind !== "directory") return undefined;
      const child = node.current.get(name);
      if (child === undefined) return undefined;
      node = child;
    }
    return node;
  }

  #follow(path: string): Node | undefined {
    const node = this.#find(path);
    return node?.kind === "symlink" ? this.#follow(node.target) : node;
  }

  #require(path: string): Node {
    const node = this.#find(path);
    if (node === undefined) throw absent(path);
    return node;
  }

  #requireDirectory(path: string): DirectoryNode {
    const node = this.#follow(path);
    if (node?.kind !== "directory") throw absent(path);
    return node;
  }

  #requireFile(path: string): FileNode {
    const node = this.#follow(path);
    if (node === undefined) throw absent(path);
    if (node.kind !== "file") {
      throw new AppError("repository", `Use "${path}": it is a ${node.kind}, wanted a file`);
    }
    return node;
  }

  #place(path: string): { readonly directory: DirectoryNode; readonly name: string } {
    const slash = path.lastIndexOf("/");
    return { directory: this.#requireDirectory(path.slice(0, slash)), name: path.slice(slash + 1) };
  }

  #change(directory: DirectoryNode, change: NameChange): void {
    directory.mtimeMs = this.#nowMs++;
    applyNames(directory.current, change);
    directory.pending.push(change);
  }

  // deno-lint-ignore require-await -- `async` turns what it throws into a rejection, here and below
  async open(path: string, mode: OpenMode, permissions = 0o600): Promise<FileHandle> {
    if (mode !== "create_new") {
      this.#plan.step("open", path);
      return this.#handle(path, this.#requireFile(path));
    }
    const node: FileNode = {
      kind: "file",
      mode: permissions,
      uid: 0,
      gid: 0,
      mtimeMs: this.#nowMs++,
      current: new Image(),
      durable: new Image(),
      pending: [],
    };
    this.#plan.step("create", path, () => {
      if (this.#find(path) !== undefined) throw exists(path);
      const { directory, name } = this.#place(path);
      this.#change(directory, { removed: [], added: [[name, node]] });
    });
    return this.#handle(path, node);
  }

  #handle(path: string, node: FileNode): FileHandle {
    let closed = false;
    const step = (operation: Operation, effect?: () => void) => {
      if (closed) throw new AppError("repository", `Use "${path}": the handle is closed`);
      this.#plan.step(operation, path, effect);
    };
    const change = (bytes: Uint8Array | undefined, position: number) => {
      const applied: Change = { bytes: bytes?.slice(), position, lost: false };
      node.current.apply(applied);
      node.pending.push(applied);
      node.mtimeMs = this.#nowMs++;
    };
    const close = () => {
      closed = true;
      return Promise.resolve();
    };
    return {
      // deno-lint-ignore require-await
      async read(buffer: Uint8Array, position: number) {
        step("read");
        return node.current.read(buffer, position);
      },
      // deno-lint-ignore require-await
      async write(bytes: Uint8Array, position: number) {
        step("write", () => change(bytes, position));
      },
      // deno-lint-ignore require-await
      async sync() {
        try {
          step("sync");
        } catch (error) {
          for (const pending of node.pending) pending.lost = true;
          throw error;
        }
        const lost = node.pending.filter((pending) => pending.lost);
        for (const pending of node.pending) if (!pending.lost) node.durable.apply(pending);
        node.pending = lost;
      },
      // deno-lint-ignore require-await
      async truncate(sizeBytes: number) {
        step("truncate", () => change(undefined, sizeBytes));
      },
      // deno-lint-ignore require-await
      async size() {
        step("stat");
        return node.current.sizeBytes;
      },
      close,
      [Symbol.asyncDispose]: close,
    };
  }

  // deno-lint-ignore require-await
  async readFile(path: string): Promise<Uint8Array<ArrayBuffer>> {
    this.#plan.step("read", path);
    return this.#requireFile(path).current.copy();
  }

  async writeFileAtomic(path: string, content: Uint8Array, permissions?: number): Promise<void> {
    const aside = `${path}.tmp.${(this.#asideCount++).toString(16).padStart(8, "0")}`;
    try {
      const file = await this.open(aside, "create_new", permissions);
      await file.write(content, 0);
      await file.sync();
      await this.rename(aside, path);
    } catch (error) {
      await this.remove(aside).catch(() => {/* the first failure says it all */});
      throw error;
    }
    await this.syncDirectory(path.slice(0, path.lastIndexOf("/")));
  }

  // deno-lint-ignore require-await
  async rename(from: string, to: string): Promise<void> {
    this.#plan.step("rename", from, () => {
      const node = this.#require(from);
      const source = this.#place(from);
      const target = this.#place(to);
      const replaced = this.#find(to);
      if (replaced === node) return;
      if (replaced?.kind === "directory" && node.kind !== "directory") {
        throw new AppError("repository", `Rename "${from}": "${to}" is a directory`);
      }
      if (replaced?.kind === "directory" && replaced.current.size > 0) throw exists(to);
      if (replaced !== undefined && replaced.kind !== "directory" && node.kind === "directory") {
        throw absent(to);
      }
      if (source.directory === target.directory) {
        this.#change(source.directory, { removed: [source.name], added: [[target.name, node]] });
      } else {
        this.#change(target.directory, { removed: [], added: [[target.name, node]] });
        this.#change(source.directory, { removed: [source.name], added: [] });
      }
    });
  }

  // deno-lint-ignore require-await
  async remove(path: string): Promise<void> {
    this.#plan.step("remove", path, () => {
      const node = this.#require(path);
      if (node.kind === "directory" && node.current.size > 0) throw exists(path);
      const { directory, name } = this.#place(path);
      this.#change(directory, { removed: [name], added: [] });
    });
  }

  // deno-lint-ignore require-await
  async removeTree(path: string): Promise<void> {
    this.#plan.step("remove", path, () => {
      if (this.#find(path) === undefined) return;
      const { directory, name } = this.#place(path);
      this.#change(directory, { removed: [name], added: [] });
    });
  }

  async makeDirectory(path: string, permissions = 0o700): Promise<void> {
    const names = path.split("/").filter((name) => name !== "");
    for (let depth = 1; depth <= names.length; depth++) {
      const prefix = `/${names.slice(0, depth).join("/")}`;
      const existing = this.#follow(prefix);
      if (existing === undefined) {
        this.#plan.step("mkdir", prefix, () => {
          const { directory, name } = this.#place(prefix);
          this.#change(directory, {
            removed: [],
            added: [[name, this.#newDirectory(permissions)]],
          });
        });
      } else if (existing.kind !== "directory") {
        throw depth === names.length ? exists(prefix) : absent(prefix);
      }
      if (existing === undefined || depth === names.length) {
        await this.syncDirectory(`/${names.slice(0, depth - 1).join("/")}`);
      }
    }
  }

  // deno-lint-ignore require-await
  async list(path: string): Promise<readonly string[]> {
    this.#plan.step("list", path);
    return [...this.#requireDirectory(path).current.keys()];
  }

  // deno-lint-ignore require-await
  async stat(path: string): Promise<FileInfo> {
    this.#plan.step("stat", path);
    const node = this.#require(path);
    const sizeBytes = node.kind === "file"
      ? node.current.sizeBytes
      : node.kind === "symlink"
      ? node.target.length
      : 0;
    const { kind, mode, uid, gid, mtimeMs } = node;
    return { kind, sizeBytes, mode, uid, gid, mtimeMs };
  }

  // deno-lint-ignore require-await
  async syncDirectory(path: string): Promise<void> {
    this.#plan.step("syncDirectory", path);
    const node = this.#requireDirectory(path);
    for (const change of node.pending.splice(0)) applyNames(node.durable, change);
  }

  // deno-lint-ignore require-await
  async makeSymlink(target: string, path: string): Promise<void> {
    this.#plan.step("create", path, () => {
      if (this.#find(path) !== undefined) throw exists(path);
      const { directory, name } = this.#place(path);
      const attributes = { mode: 0o777, uid: 0, gid: 0, mtimeMs: this.#nowMs++ };
      const node: SymlinkNode = { kind: "symlink", target, ...attributes };
      this.#change(directory, { removed: [], added: [[name, node]] });
    });
  }

  // deno-lint-ignore require-await
  async readSymlink(path: string): Promise<string> {
    this.#plan.step("stat", path);
    const node = this.#require(path);
    if (node.kind === "symlink") return node.target;
    throw new AppError("repository", `Read symlink "${path}": it is a ${node.kind}`);
  }

  async setMode(path: string, mode: number): Promise<void> {
    await this.#setAttributes(this.#follow(path), path, { mode });
  }

  async setOwner(path: string, uid: number, gid: number): Promise<void> {
    await this.#setAttributes(this.#find(path), path, { uid, gid });
  }

  async setTimes(path: string, mtimeMs: number): Promise<void> {
    await this.#setAttributes(this.#follow(path), path, { mtimeMs });
  }

  // deno-lint-ignore require-await
  async #setAttributes(node: Node | undefined, path: string, to: Partial<Attributes>) {
    this.#plan.step("attribute", path);
    if (node === undefined) throw absent(path);
    Object.assign(node, to);
  }

  // deno-lint-ignore require-await
  async space(path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }> {
    this.#plan.step("stat", path);
    this.#require(path);
    return { freeBytes: this.freeBytes, totalBytes: 2 ** 40 };
  }
}

function absent(path: string): AppError {
  return new AppError("not_found", `Use "${path}": it does not exist`);
}

function exists(path: string): AppError {
  return new AppError("conflict", `Use "${path}": it exists`);
}
