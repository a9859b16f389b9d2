/**
 * The committed manifests, all of them in memory (reference/kopia.md 3.12): they are few and small, some kilobytes per
 * backup. Their contents may be read in any order and more than once; of several versions of a manifest the latest counts,
 * and a tombstone is a version.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import {
  decodeManifests,
  MANIFEST_CONTENT_PREFIX,
  type StoredManifest,
} from "../../codec/kopia/manifests.ts";
import type { BlobStore } from "../../ports/blob_store.ts";
import type { CommittedIndex } from "./committed_index.ts";
import type { ContentCodec } from "./content_codec.ts";
import { readStoredContent } from "./stored_content.ts";

/** Unpacked length of a manifest content: what one flush, or stock's compaction of everything, wrote. */
const CONTENT_BYTES_MAX = 256 << 20;

/** What {@link CommittedManifests} need. */
export interface CommittedManifestsDeps {
  readonly store: BlobStore;
  readonly codec: ContentCodec;
  readonly index: CommittedIndex;
  readonly clock: Clock;
}

/** See the module comment. */
export class CommittedManifests {
  readonly #deps: CommittedManifestsDeps;
  readonly #versions = new Map<string, StoredManifest>();
  readonly #readContents = new Set<string>();
  #generation = -1;
  #latestModifiedNs = 0n;

  /** Empty until `refresh`. */
  constructor(deps: CommittedManifestsDeps) {
    this.#deps = deps;
  }

  /** Reads the manifest contents that the index names and that were not read yet. */
  async refresh(options: Waiting): Promise<void> {
    const { index } = this.#deps;
    const { generation } = index;
    if (this.#generation === generation) return;
    for (const entry of index.withPrefix(MANIFEST_CONTENT_PREFIX)) {
      if (this.#readContents.has(entry.id)) continue;
      const bytes = await readStoredContent(this.#deps, entry, options);
      this.merge(decodeManifests(bytes, CONTENT_BYTES_MAX));
      this.#readContents.add(entry.id);
    }
    this.#generation = generation;
  }

  /** Adds versions that were just committed. */
  merge(versions: Iterable<StoredManifest>): void {
    for (const version of versions) {
      const { id, modifiedNs } = version;
      const known = this.#versions.get(id);
      if (known === undefined || modifiedNs > known.modifiedNs) this.#versions.set(id, version);
      if (modifiedNs > this.#latestModifiedNs) this.#latestModifiedNs = modifiedNs;
    }
  }

  /** The latest version, a tombstone included. */
  get(id: string): StoredManifest | undefined {
    return this.#versions.get(id);
  }

  /** Ids of all manifests, removed ones included. */
  ids(): Iterable<string> {
    return this.#versions.keys();
  }

  /** A time for a new version: now, yet later than every version known and every time handed out. */
  nextModifiedNs(): bigint {
    const nowNs = BigInt(this.#deps.clock.nowMs()) * 1_000_000n;
    this.#latestModifiedNs = nowNs > this.#latestModifiedNs ? nowNs : this.#latestModifiedNs + 1n;
    return this.#latestModifiedNs;
  }
}
