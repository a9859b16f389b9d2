/**
 * Which index blobs count (reference/kopia.md 3.8). Flushes write `xn<epoch>_…`; maintenance merges the blobs of one epoch
 * into `xs<epoch>_…` and of several into `xr<min>_<max>_…`; `xe<epoch>` starts an epoch and `xw<seconds>` makes
 * tombstones up to that time final. A reader that follows these rules sees every entry exactly as often as it must, also
 * while a stock client compacts.
 *
 * @module
 */

/** Prefixes of everything that takes part. */
export const EPOCH_BLOB_PREFIX = "x";

/** A blob of a listing; only prefix `x` is looked at. */
export interface EpochBlob {
  readonly id: string;
  readonly modifiedMs: number;
}

/** What a listing means. */
export interface EpochState {
  /** Epoch that new index blobs belong to. */
  readonly writeEpoch: number;
  /** Entries with the deleted flag and a time up to this one are absent. 0 when there is no watermark. */
  readonly watermarkSeconds: number;
  /** The blobs that together are the index. */
  readonly indexBlobs: readonly string[];
}

/** A settled epoch cannot receive entries any more: it lies this far behind the write epoch. */
const SETTLED_DISTANCE = 2;

/** Prefix of the index blobs that a flush writes in that epoch. */
export function indexBlobPrefix(epoch: number): string {
  return `xn${epoch}_`;
}

/** Suffix of the shards of one flush: readers of compacted sets wait until `count` of them exist. */
export function indexBlobSuffix(sessionId: string, count: number): string {
  return `${sessionId}-c${count}`;
}

interface Range {
  readonly min: number;
  readonly max: number;
  readonly blobs: readonly string[];
}

/** Computes the state from a complete listing of the blobs with prefix `x`. Malformed names are ignored. */
export function computeEpochState(blobs: Iterable<EpochBlob>): EpochState {
  const startMs = new Map<number, number>();
  const uncompacted = new Map<number, EpochBlob[]>();
  const singles = new Map<number, string[]>();
  const ranges = new Map<string, string[]>();
  let watermarkSeconds = 0;
  for (const blob of blobs) {
    const [, kind = "", first = "", second = ""] = NAME.exec(blob.id) ?? [];
    const number = Number(first);
    switch (kind) {
      case "xe":
        startMs.set(number, blob.modifiedMs);
        break;
      case "xw":
        watermarkSeconds = Math.max(watermarkSeconds, number);
        break;
      case "xn":
        append(uncompacted, number, blob);
        break;
      case "xs":
        append(singles, number, blob.id);
        break;
      case "xr":
        if (second !== "") append(ranges, `${first}_${second}`, blob.id);
        break;
    }
  }
  let writeEpoch = 0;
  for (const epoch of startMs.keys()) writeEpoch = Math.max(writeEpoch, epoch);

  const indexBlobs: string[] = [];
  let nextEpoch = 0;
  for (const range of longestChain(completeRanges(ranges))) {
    indexBlobs.push(...range.blobs);
    nextEpoch = range.max + 1;
  }
  // Only epochs that have blobs: their numbers come from names and may be anything.
  const epochs = new Set([...singles.keys(), ...uncompacted.keys()]);
  for (const epoch of [...epochs].sort((a, b) => a - b)) {
    if (epoch < nextEpoch || epoch > writeEpoch + 1) continue;
    const single = epoch <= writeEpoch - SETTLED_DISTANCE
      ? completeSet(singles.get(epoch) ?? [])
      : undefined;
    // Written after the epoch was settled: compaction may have missed it, so no reader may count it.
    const settledMs = startMs.get(epoch + SETTLED_DISTANCE) ?? Infinity;
    indexBlobs.push(
      ...single ??
        (uncompacted.get(epoch) ?? []).filter((b) => b.modifiedMs <= settledMs).map((b) => b.id),
    );
  }
  return { writeEpoch, watermarkSeconds, indexBlobs };
}

const NAME = /^(x[enrsw])(\d{1,15})(?:_(\d{1,15})(?=_)|_|$)/;

function append<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

/** The first set `…-s<set>-c<count>` that has all its members; undefined when none has. */
function completeSet(ids: readonly string[]): readonly string[] | undefined {
  const sets = new Map<string, string[]>();
  for (const id of ids) {
    const [, set, count] = /^[^-]*-(s[^-]*)-c(\d{1,9})$/.exec(id) ?? [];
    if (set === undefined) continue;
    append(sets, set, id);
    const members = sets.get(set) ?? [];
    if (members.length === Number(count)) return members;
  }
  return undefined;
}

function completeRanges(ranges: ReadonlyMap<string, readonly string[]>): Range[] {
  const complete: Range[] = [];
  for (const [key, ids] of ranges) {
    const [min = 0, max = 0] = key.split("_").map(Number);
    const blobs = completeSet(ids);
    if (blobs !== undefined && min <= max) complete.push({ min, max, blobs });
  }
  return complete;
}

/** Ranges that follow each other from epoch 0 and reach furthest. */
function longestChain(ranges: readonly Range[]): readonly Range[] {
  // Backwards, so that what follows a range is known when it is looked at.
  const best = new Map<number, readonly Range[]>();
  for (const range of [...ranges].sort((a, b) => b.min - a.min)) {
    const chain = [range, ...best.get(range.max + 1) ?? []];
    const known = best.get(range.min);
    if (known === undefined || reach(chain) > reach(known)) best.set(range.min, chain);
  }
  return best.get(0) ?? [];
}

function reach(chain: readonly Range[]): number {
  return chain.at(-1)?.max ?? -1;
}
