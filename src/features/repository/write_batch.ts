/**
 * What one session wrote and has not committed yet: one Kopia "session id" worth of packs (reference/kopia.md 3.6, 3.9).
 * The order that makes a crash harmless at every point: session marker, packs, packs with manifests, index, marker removed.
 * Manifests wait for all other packs, so that even an index rebuilt from packs alone never holds a manifest without its
 * contents.
 *
 * Memory: one open pack of each kind, at most one closed pack of each kind that waits, and what the budget of uploads
 * has let through (a bound for the whole repository), if every writer asks `room` before it calls `write`.
 *
 * @module
 */

import { assert } from "../../base/assert.ts";
import type { ByteBudget } from "../../base/byte_budget.ts";
import type { Bytes } from "../../base/bytes.ts";
import type { Clock, Random } from "../../base/clock.ts";
import { TaskGroup } from "../../base/task_group.ts";
import type { IndexEntry } from "../../codec/kopia/index.ts";
import { FORMAT_VERSION } from "../../codec/kopia/format.ts";
import {
  encodeManifests,
  MANIFEST_CONTENT_PREFIX,
  type StoredManifest,
} from "../../codec/kopia/manifests.ts";
import { newSessionId, type PackPrefix } from "../../codec/kopia/pack.ts";
import { sealBlob } from "../../codec/kopia/sealed_blob.ts";
import { encodeSessionMarker, SESSION_MARKER_PREFIX } from "../../codec/kopia/session_marker.ts";
import { COMPRESSION_ZSTD_FASTEST } from "../../codec/kopia/compression.ts";
import type { BlobStore } from "../../ports/blob_store.ts";
import type { SessionOwner } from "./authorization.ts";
import type { CommittedIndex } from "./committed_index.ts";
import type { ContentCodec } from "./content_codec.ts";
import { OpenPack } from "./open_pack.ts";

const SESSION_ID_BYTES = 8;

/** What a {@link WriteBatch} needs. */
export interface WriteBatchDeps {
  readonly store: BlobStore;
  readonly codec: ContentCodec;
  readonly index: CommittedIndex;
  readonly uploads: ByteBudget;
  readonly clock: Clock;
  readonly random: Random;
  readonly owner: SessionOwner;
  readonly packBytesMax: number;
}

/** A content that is not committed. */
export interface PendingContent {
  readonly entry: IndexEntry;
  /** undefined once its pack is in the store. */
  sealed: Bytes | undefined;
}

/** See the module comment. */
export class WriteBatch implements AsyncDisposable {
  readonly sessionId: string;
  /** Versions of manifests to commit, by id. The owner fills it. */
  readonly manifests = new Map<string, StoredManifest>();
  readonly #deps: WriteBatchDeps;
  readonly #contents = new Map<string, PendingContent>();
  readonly #open = new Map<PackPrefix, OpenPack>();
  readonly #uploads: TaskGroup;
  #waitingForBudget = 0;
  #hasRoom: PromiseWithResolvers<void> = Promise.withResolvers<void>();
  #marker: Promise<string> | undefined;

  /** `signal` ends the uploads. */
  constructor(deps: WriteBatchDeps, signal: AbortSignal) {
    this.#deps = deps;
    this.#uploads = new TaskGroup(signal);
    this.sessionId = newSessionId(deps.random.bytes(SESSION_ID_BYTES), deps.clock.nowMs());
  }

  /** Contents written. */
  get count(): number {
    return this.#contents.size;
  }

  get isEmpty(): boolean {
    return this.#contents.size === 0 && this.manifests.size === 0;
  }

  find(id: string): PendingContent | undefined {
    return this.#contents.get(id);
  }

  /** Throws the failure of an upload: nothing of this batch can be committed any more. */
  throwIfFailed(): void {
    this.#uploads.signal.throwIfAborted();
  }

  /** undefined when a content may be written now, otherwise what to wait for before asking again. */
  room(): Promise<void> | undefined {
    return this.#waitingForBudget === 0 ? undefined : this.#hasRoom.promise;
  }

  /** Adds a content whose id is neither here nor committed (`replaced` is a committed tombstone of it). */
  write(content: {
    readonly id: string;
    readonly hash: Uint8Array;
    readonly data: Uint8Array;
    readonly compression: number;
    readonly replaced: IndexEntry | undefined;
  }): void {
    assert(!this.#contents.has(content.id), "a content is written once");
    const { codec, clock, random, packBytesMax } = this.#deps;
    const { id, hash, data, replaced } = content;
    const prefix = id.length % 2 === 1 ? "q" : "p"; // hex digits are even, a prefix makes the length odd
    let pack = this.#open.get(prefix);
    const sealed = codec.seal(hash, data, content.compression);
    if (pack === undefined) {
      pack = new OpenPack(prefix, this.sessionId, random);
      this.#open.set(prefix, pack);
    }
    const nowSeconds = Math.floor(clock.nowMs() / 1000);
    const entry: IndexEntry = {
      id,
      timestampSeconds: Math.max(nowSeconds, (replaced?.timestampSeconds ?? -1) + 1),
      packBlobId: pack.blobId,
      packOffset: pack.sizeBytes,
      packedLength: sealed.bytes.length,
      originalLength: data.length,
      deleted: false,
      compression: sealed.compression,
      formatVersion: FORMAT_VERSION,
      encryptionKeyId: 0,
    };
    pack.add(entry, sealed.bytes);
    this.#contents.set(id, { entry, sealed: sealed.bytes });
    if (pack.sizeBytes >= packBytesMax) this.#close(prefix);
  }

  /**
   * Makes everything durable and visible, the manifests as the last part of it. Call it once, at the end. A failure leaves
   * nothing visible, or (when the store failed after it had stored the index) everything; the store tells later.
   */
  async commit(): Promise<void> {
    const { codec, index } = this.#deps;
    this.#close("p");
    if (this.manifests.size > 0) {
      await this.#uploads.join();
      const data = encodeManifests([...this.manifests.values()]);
      const { id, hash } = codec.identify(MANIFEST_CONTENT_PREFIX, data);
      // The random ids within make a manifest content unique: it cannot be here already.
      this.write({ id, hash, data, compression: COMPRESSION_ZSTD_FASTEST, replaced: undefined });
    }
    this.#close("q");
    await this.#uploads.join();
    this.throwIfFailed();
    const entries = [...this.#contents.values()].map((content) => content.entry);
    await index.commit(this.sessionId, entries);
    await this.#removeMarker();
  }

  /** Stops the uploads; what is not committed is dropped. Its packs are garbage without an index. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#uploads[Symbol.asyncDispose]();
    this.#contents.clear();
    this.#open.clear();
    await this.#removeMarker();
  }

  #close(prefix: PackPrefix): void {
    const pack = this.#open.get(prefix);
    if (pack === undefined) return;
    this.#open.delete(prefix);
    this.#waitingForBudget++;
    this.#uploads.start((signal) => this.#upload(pack, signal));
  }

  async #upload(pack: OpenPack, signal: AbortSignal): Promise<void> {
    const { uploads } = this.#deps;
    const { sizeBytes } = pack;
    try {
      await uploads.acquire(sizeBytes, { signal });
    } finally {
      this.#waitingForBudget--;
      const hasRoom = this.#hasRoom;
      this.#hasRoom = Promise.withResolvers<void>();
      hasRoom.resolve();
    }
    try {
      await this.#store(pack, signal);
    } finally {
      uploads.release(sizeBytes);
    }
  }

  async #store(pack: OpenPack, signal: AbortSignal): Promise<void> {
    const { store, codec } = this.#deps;
    await (this.#marker ??= this.#putMarker(signal));
    await store.put(pack.blobId, pack.finish(codec), { signal });
    for (const entry of pack.entries) {
      const content = this.#contents.get(entry.id);
      if (content !== undefined) content.sealed = undefined;
    }
  }

  /** Never throws: a left-over marker only makes garbage collection wait. Not interrupted by the end of the session. */
  async #removeMarker(): Promise<void> {
    const marker = this.#marker;
    this.#marker = undefined;
    try {
      const id = await marker;
      if (id === undefined) return;
      await this.#deps.store.remove(id, { signal: new AbortController().signal });
    } catch {
      // See above.
    }
  }

  async #putMarker(signal: AbortSignal): Promise<string> {
    const { store, codec, clock, owner } = this.#deps;
    const nowNs = BigInt(clock.nowMs()) * 1_000_000n;
    const blob = sealBlob(
      {
        prefix: SESSION_MARKER_PREFIX,
        suffix: this.sessionId,
        plain: encodeSessionMarker({
          sessionId: this.sessionId,
          startNs: nowNs,
          checkpointNs: nowNs,
          user: owner.user,
          host: owner.host,
        }),
        nonce: codec.nonce(),
      },
      codec.hasher,
      codec.cipher,
    );
    await store.put(blob.id, [blob.bytes], { signal });
    return blob.id;
  }
}
