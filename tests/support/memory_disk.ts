/**
 * The disk behind `memory_files.ts`: files and directories that know what is durable and what is not, and what a crash
 * leaves of them.
 *
 * @module
 */

/** A write or truncate that is not durable yet. */
export interface Change {
  /** Undefined: a truncate to `position`. */
  readonly bytes: Uint8Array | undefined;
  readonly position: number;
  /** A sync failed while it was pending: no later sync helps. */
  lost: boolean;
}

/** A byte array that grows in powers of two. */
export class Image {
  #buffer = new Uint8Array(0);
  sizeBytes = 0;

  static of(other: Image): Image {
    const image = new Image();
    image.#buffer = other.#buffer.slice(0, other.sizeBytes);
    image.sizeBytes = other.sizeBytes;
    return image;
  }

  apply(change: Pick<Change, "bytes" | "position">): void {
    const end = change.position + (change.bytes?.length ?? 0);
    if (end > this.#buffer.length) {
      const grown = new Uint8Array(Math.max(end, this.#buffer.length * 2));
      grown.set(this.#buffer.subarray(0, this.sizeBytes));
      this.#buffer = grown;
    }
    if (change.bytes === undefined) {
      if (end < this.sizeBytes) this.#buffer.fill(0, end, this.sizeBytes);
      this.sizeBytes = end;
    } else {
      this.#buffer.set(change.bytes, change.position);
      this.sizeBytes = Math.max(this.sizeBytes, end);
    }
  }

  read(buffer: Uint8Array, position: number): number {
    const part = this.#buffer.subarray(
      Math.min(position, this.sizeBytes),
      Math.min(position + buffer.length, this.sizeBytes),
    );
    buffer.set(part);
    return part.length;
  }

  copy(): Uint8Array<ArrayBuffer> {
    return this.#buffer.slice(0, this.sizeBytes);
  }
}

/** What `stat` tells besides. */
export interface Attributes {
  mode: number;
  uid: number;
  gid: number;
  mtimeMs: number;
}

/** A file. */
export interface FileNode extends Attributes {
  readonly kind: "file";
  current: Image;
  durable: Image;
  /** Writes not yet durable, in order; those flagged `lost` stay for ever. */
  pending: Change[];
}

/** One change of names: atomic as long as it concerns one directory. */
export interface NameChange {
  readonly removed: readonly string[];
  readonly added: readonly (readonly [string, Node])[];
}

/** A directory. */
export interface DirectoryNode extends Attributes {
  readonly kind: "directory";
  current: Map<string, Node>;
  durable: Map<string, Node>;
  pending: NameChange[];
}

/** A symbolic link. */
export interface SymlinkNode extends Attributes {
  readonly kind: "symlink";
  readonly target: string;
}

/** Anything with a name. */
export type Node = FileNode | DirectoryNode | SymlinkNode;

/** Carries out a change of names. */
export function applyNames(entries: Map<string, Node>, change: NameChange): void {
  for (const name of change.removed) entries.delete(name);
  for (const [name, node] of change.added) entries.set(name, node);
}

/** A copy of what survives below `node`; `seen` keeps one copy per file when several names lead to it. */
export function surviveDirectory(
  node: DirectoryNode,
  keep: () => boolean,
  random: () => number,
  seen: Map<Node, Node>,
): DirectoryNode {
  const names = new Map(node.durable);
  for (const change of node.pending) if (keep()) applyNames(names, change);
  const entries = new Map<string, Node>();
  for (const [name, child] of names) {
    const survivor = seen.get(child) ??
      (child.kind === "directory"
        ? surviveDirectory(child, keep, random, seen)
        : child.kind === "file"
        ? surviveFile(child, keep, random)
        : child);
    seen.set(child, survivor);
    entries.set(name, survivor);
  }
  return { ...node, current: entries, durable: new Map(entries), pending: [] };
}

function surviveFile(node: FileNode, keep: () => boolean, random: () => number): FileNode {
  const durable = Image.of(node.durable);
  for (const change of node.pending) {
    if (!keep()) continue;
    const torn = change.bytes !== undefined && random() < 0.3;
    durable.apply(
      torn
        ? {
          bytes: change.bytes?.subarray(0, Math.floor(random() * change.bytes.length)),
          position: change.position,
        }
        : change,
    );
  }
  return { ...node, current: Image.of(durable), durable, pending: [] };
}
