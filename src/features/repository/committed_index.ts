/**
 * The committed index: what the store's index blobs say, and the only way to add to it (reference/kopia.md 3.8). One process
 * owns the repository, yet a stock kopia may run maintenance beside it; so the rules for several writers are kept as far
 * as they concern an owner that only appends:
 *
 * - the epoch state may be used for `refreshFrequencyMs` after the listing that it was computed from was begun; a commit
 *   wants three quarters of that left and reads again otherwise;
 * - after a commit the epoch markers are read again: when the epoch moved on by two meanwhile, readers may already have
 *   compacted without our blob, so it is removed and the commit fails.
 *
 * Commits and refreshes take turns. A commit is never interrupted half-way: its outcome would be unknown. When it fails
 * after the blob may have been stored, the next use reads the store again.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError, isKind } from "../../base/failure.ts";
import {
  computeEpochState,
  EPOCH_BLOB_PREFIX,
  type EpochState,
  indexBlobPrefix,
  indexBlobSuffix,
} from "../../codec/kopia/epoch.ts";
import { encodeIndex, type IndexEntry, IndexImage } from "../../codec/kopia/index.ts";
import { openBlob, sealBlob } from "../../codec/kopia/sealed_blob.ts";
import type { BlobInfo, BlobStore } from "../../ports/blob_store.ts";
import type { ContentCodec } from "./content_codec.ts";
import { IndexImages } from "./index_images.ts";
import { Turns } from "./turns.ts";

/** A blob of the listing may be compacted away before it is read: then list again, this often. */
const REFRESH_ATTEMPTS_MAX = 3;
/** Part of the validity that may have passed when a commit begins. */
const COMMIT_AGE_MAX = 0.25;
/** Compaction may have been done without a blob when the epoch moved on that far. */
const SETTLED_DISTANCE = 2;

/** What a {@link CommittedIndex} needs. */
export interface CommittedIndexDeps {
  readonly store: BlobStore;
  readonly codec: ContentCodec;
  readonly clock: Clock;
  readonly refreshFrequencyMs: number;
}

/** What one reading of the store gave. Replaced as a whole. */
interface Loaded {
  readonly epoch: EpochState;
  readonly blobIds: Set<string>;
  readonly images: IndexImages;
  readonly listedMonotonicMs: number;
}

/** See the module comment. */
export class CommittedIndex {
  readonly #deps: CommittedIndexDeps;
  readonly #turns = new Turns();
  /** Never aborts: see the module comment. */
  readonly #uninterrupted: Waiting = { signal: new AbortController().signal };
  #loaded: Loaded;
  #isStale = false;
  #generation = 0;

  private constructor(deps: CommittedIndexDeps, loaded: Loaded) {
    this.#deps = deps;
    this.#loaded = loaded;
  }

  /** Reads the index of the store. */
  static async load(deps: CommittedIndexDeps, options: Waiting): Promise<CommittedIndex> {
    return new CommittedIndex(deps, await load(deps, undefined, options));
  }

  /** Entries, tombstones included; an id that two sessions wrote at once may count twice. */
  get count(): number {
    return this.#loaded.images.count;
  }

  /** Changes whenever the store was read: then others may have added something. */
  get generation(): number {
    return this.#generation;
  }

  /** The entry of a content; undefined when absent. A tombstone counts as absent once the watermark has passed it. */
  find(id: string): IndexEntry | undefined {
    return this.#unlessFinal(this.#loaded.images.find(id));
  }

  /** The live entries of all contents with that prefix. */
  withPrefix(prefix: string): IndexEntry[] {
    return this.#loaded.images.withPrefix(prefix).filter((entry) => !entry.deleted);
  }

  /** Reads what others changed, when what we know is too old for a commit or may be wrong. */
  async refreshIfDue(options: Waiting): Promise<void> {
    await this.#turns.run(async () => {
      options.signal.throwIfAborted();
      await this.#refreshIfDue(options);
    });
  }

  /** Makes the entries durable and visible. Their packs are durable already. */
  async commit(sessionId: string, entries: readonly IndexEntry[]): Promise<void> {
    await this.#turns.run(async () => {
      await this.#refreshIfDue(this.#uninterrupted);
      const { store, codec } = this.#deps;
      const epoch = this.#loaded.epoch.writeEpoch;
      const image = encodeIndex(entries);
      const blob = sealBlob(
        {
          prefix: indexBlobPrefix(epoch),
          suffix: indexBlobSuffix(sessionId, 1),
          plain: image,
          nonce: codec.nonce(),
        },
        codec.hasher,
        codec.cipher,
      );
      this.#isStale = true; // until we know what became of it
      await store.put(blob.id, [blob.bytes], this.#uninterrupted);
      await this.#checkEpoch(epoch, blob.id);
      this.#isStale = false;
      this.#loaded.blobIds.add(blob.id);
      this.#loaded.images.add(new IndexImage(image));
    });
  }

  async #checkEpoch(writtenEpoch: number, blobId: string): Promise<void> {
    const { store } = this.#deps;
    const markers = await listed(store, `${EPOCH_BLOB_PREFIX}e`, this.#uninterrupted);
    const { writeEpoch } = computeEpochState(markers);
    if (writeEpoch < writtenEpoch + SETTLED_DISTANCE) return;
    await store.remove(blobId, this.#uninterrupted);
    throw new AppError(
      "conflict",
      `Commit index blob "${blobId}": the write epoch moved from ${writtenEpoch} to ${writeEpoch} meanwhile`,
      { hint: "another program advances the epochs of this repository too fast; write again" },
    );
  }

  async #refreshIfDue(options: Waiting): Promise<void> {
    const { clock, refreshFrequencyMs } = this.#deps;
    const ageMs = clock.monotonicMs() - this.#loaded.listedMonotonicMs;
    if (!this.#isStale && ageMs <= refreshFrequencyMs * COMMIT_AGE_MAX) return;
    this.#loaded = await load(this.#deps, this.#loaded, options);
    this.#generation++;
    this.#isStale = false;
  }

  #unlessFinal(entry: IndexEntry | undefined): IndexEntry | undefined {
    if (entry === undefined || !entry.deleted) return entry;
    return entry.timestampSeconds <= this.#loaded.epoch.watermarkSeconds ? undefined : entry;
  }
}

/** Reads the store; images of blobs that are still part of the index are kept when all of them are. */
async function load(
  deps: CommittedIndexDeps,
  known: Loaded | undefined,
  options: Waiting,
): Promise<Loaded> {
  for (let attempt = 1;; attempt++) {
    try {
      return await loadOnce(deps, known, options);
    } catch (error) {
      if (!isKind(error, "not_found") || attempt === REFRESH_ATTEMPTS_MAX) throw error;
    }
  }
}

async function loadOnce(
  deps: CommittedIndexDeps,
  known: Loaded | undefined,
  options: Waiting,
): Promise<Loaded> {
  const { store, codec, clock, refreshFrequencyMs } = deps;
  const listedMonotonicMs = clock.monotonicMs();
  const epoch = computeEpochState(await listed(store, EPOCH_BLOB_PREFIX, options));
  const active = new Set(epoch.indexBlobs);
  const isExtended = known !== undefined && [...known.blobIds].every((id) => active.has(id));
  const blobIds = new Set(isExtended ? known.blobIds : []);
  const images = isExtended ? known.images : new IndexImages();
  const added: IndexImage[] = [];
  for (const id of active) {
    if (blobIds.has(id)) continue;
    const bytes = await store.get(id, options);
    added.push(new IndexImage(openBlob(id, bytes, codec.cipher, codec.hasher)));
    blobIds.add(id);
  }
  if (clock.monotonicMs() - listedMonotonicMs > refreshFrequencyMs) {
    throw new AppError(
      "timeout",
      `Read the index of ${store.description}: it took longer than the ${refreshFrequencyMs} ms for which a listing is valid`,
    );
  }
  images.addAll(added); // all or none: a failed reading leaves what was known as it is
  return { epoch, blobIds, images, listedMonotonicMs };
}

async function listed(store: BlobStore, prefix: string, options: Waiting): Promise<BlobInfo[]> {
  const blobs: BlobInfo[] = [];
  for await (const blob of store.list(prefix, options)) blobs.push(blob);
  return blobs;
}
