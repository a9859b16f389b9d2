/**
 * Many index images looked up as one (reference/kopia.md 3.7, merging rule). Every flush adds a small image; small ones are
 * merged in memory, so that a lookup asks few of them. Big ones are left alone: merging needs an object per entry for a
 * moment, and the bound on that is {@link MERGED_ENTRIES_MAX}. Memory: about 33 bytes per entry, plus pack names.
 *
 * @module
 */

import { encodeIndex, type IndexEntry, IndexImage, supersedes } from "../../codec/kopia/index.ts";

/** No merged image has more entries: about 25 MiB of objects and 0.2 s while merging. */
export const MERGED_ENTRIES_MAX = 65_536;

/** See the module comment. */
export class IndexImages {
  /** From many to few entries: each has more than twice as many as the next, unless both together were too many. */
  readonly #images: IndexImage[] = [];

  /** Entries in all images; an id that is in several counts several times. */
  get count(): number {
    let count = 0;
    for (const image of this.#images) count += image.count;
    return count;
  }

  /** How many a lookup asks. */
  get imageCount(): number {
    return this.#images.length;
  }

  add(image: IndexImage): void {
    let added = image;
    for (;;) {
      const previous = this.#images.at(-1);
      const isSmall = previous !== undefined && previous.count <= 2 * added.count &&
        previous.count + added.count <= MERGED_ENTRIES_MAX;
      if (!isSmall) break;
      this.#images.pop();
      added = merge([previous, added]);
    }
    this.#images.push(added);
  }

  /** The same for many, cheaper than one by one: small ones are merged once. */
  addAll(images: readonly IndexImage[]): void {
    let group: IndexImage[] = [];
    let count = 0;
    for (const image of images) {
      if (group.length > 0 && count + image.count > MERGED_ENTRIES_MAX) {
        this.add(merge(group));
        group = [];
        count = 0;
      }
      group.push(image);
      count += image.count;
    }
    if (group.length > 0) this.add(merge(group));
  }

  /** The entry that counts, tombstones included. Throws `protocol` for what is no content id. */
  find(id: string): IndexEntry | undefined {
    let best: IndexEntry | undefined;
    for (const image of this.#images) {
      const entry = image.find(id);
      if (entry !== undefined && (best === undefined || supersedes(entry, best))) best = entry;
    }
    return best;
  }

  /** The entries that count of all contents with that prefix; one object for each. */
  withPrefix(prefix: string): IndexEntry[] {
    const best = new Map<string, IndexEntry>();
    for (const image of this.#images) keepBest(best, image.entriesWithPrefix(prefix));
    return [...best.values()];
  }
}

function merge(images: readonly IndexImage[]): IndexImage {
  const [first] = images;
  if (images.length === 1 && first !== undefined) return first;
  const best = new Map<string, IndexEntry>();
  for (const image of images) keepBest(best, image.entries());
  return new IndexImage(encodeIndex([...best.values()]));
}

function keepBest(best: Map<string, IndexEntry>, entries: Iterable<IndexEntry>): void {
  for (const entry of entries) {
    const known = best.get(entry.id);
    if (known === undefined || supersedes(entry, known)) best.set(entry.id, entry);
  }
}
