/**
 * An open repository over a memory store, with everything that a test may want to touch: store, clock, codec, limits.
 *
 * @module
 */

import { ContentCodec } from "../../src/features/repository/content_codec.ts";
import {
  openWithFormat,
  type Repository,
  type RepositoryLimits,
} from "../../src/features/repository/repository.ts";
import { encodeIndex, type IndexEntry } from "../../src/codec/kopia/index.ts";
import { sealBlob } from "../../src/codec/kopia/sealed_blob.ts";
import type { RepositorySession } from "../../src/ports/repository_session.ts";
import { FakeClock } from "./fake_clock.ts";
import type { MemoryBlobStore } from "./memory_blob_store.ts";
import { copyRepositoryTemplate } from "./repository_template.ts";
import { SeededRandom } from "./seeded_random.ts";

const waiting = { signal: new AbortController().signal };

/** Who the sessions of these tests belong to. */
export const WORLD_OWNER = { user: "klio", host: "cluster-a", purpose: "test" };
/** Labels that this owner may change. */
export const WORLD_LABELS = {
  type: "snapshot",
  username: "klio",
  hostname: "cluster-a",
  path: "/x",
};

/** A copy of the template, opened, with everything a test may want to touch. */
export class RepositoryWorld implements AsyncDisposable {
  readonly store: MemoryBlobStore;
  readonly clock: FakeClock;
  readonly codec: ContentCodec;
  repository: Repository;
  readonly #open: () => Promise<Repository>;

  private constructor(
    parts: { store: MemoryBlobStore; clock: FakeClock; codec: ContentCodec },
    repository: Repository,
    open: () => Promise<Repository>,
  ) {
    ({ store: this.store, clock: this.clock, codec: this.codec } = parts);
    this.repository = repository;
    this.#open = open;
  }

  static async open(
    options: { packBytesMax?: number; limits?: Partial<RepositoryLimits> } = {},
  ): Promise<RepositoryWorld> {
    const { store, format } = await copyRepositoryTemplate();
    const clock = new FakeClock();
    const random = new SeededRandom(9);
    const { packBytesMax: maxPackSizeBytes = format.maxPackSizeBytes, limits = {} } = options;
    const deps = { store, clock, random, limits };
    const open = () => openWithFormat(deps, { ...format, maxPackSizeBytes }, waiting);
    const codec = new ContentCodec(format, random);
    return new RepositoryWorld({ store, clock, codec }, await open(), open);
  }

  async reopen(): Promise<void> {
    await this.repository.close();
    this.repository = await this.#open();
  }

  session(): Promise<RepositorySession> {
    return this.repository.openSession(WORLD_OWNER, waiting);
  }

  ids(prefix: string): string[] {
    return [...this.store.blobs.keys()].filter((id) => id.startsWith(prefix));
  }

  /** Stores an index blob as another program would. */
  async putIndex(epoch: number, entries: readonly IndexEntry[]): Promise<string> {
    const { codec } = this;
    const blob = sealBlob(
      {
        prefix: `xn${epoch}_`,
        suffix: "s01-c1",
        plain: encodeIndex(entries),
        nonce: codec.nonce(),
      },
      codec.hasher,
      codec.cipher,
    );
    await this.store.put(blob.id, [blob.bytes], waiting);
    return blob.id;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.repository.close();
  }
}

/** Incompressible bytes, the same for the same seed. */
export function noise(sizeBytes: number, seed: number): Uint8Array<ArrayBuffer> {
  return new SeededRandom(seed).bytes(sizeBytes);
}

/** Writes a content without compression; its id. */
export function writeRaw(
  session: RepositorySession,
  data: Uint8Array,
  prefix = "",
): Promise<string> {
  return session.writeContent({ prefix, data, compression: 0 }, waiting);
}
