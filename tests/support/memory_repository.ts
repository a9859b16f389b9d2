/**
 * A repository in memory: the fast stand-in for `features/repository` in other features' tests. It keeps the same promises
 * (nothing is visible to others before `flush`, the same failures, the same authorisation) and passes the same contract
 * suite; nothing is compressed, encrypted or packed. `onOperation` lets a test fail, delay or count calls.
 *
 * @module
 */

import { createHmac } from "node:crypto";
import type { Waiting } from "../../src/base/abort.ts";
import { type Bytes, concat, fromUtf8, toHex } from "../../src/base/bytes.ts";
import type { Clock, Random } from "../../src/base/clock.ts";
import { AppError } from "../../src/base/failure.ts";
import {
  manifestAccess,
  requireContentPrefix,
  requireFull,
  requireRead,
  type SessionOwner,
} from "../../src/features/repository/authorization.ts";
import type {
  ContentInfo,
  Labels,
  Manifest,
  ManifestMetadata,
  RepositoryParameters,
  RepositorySession,
} from "../../src/ports/repository_session.ts";
import { FakeClock } from "./fake_clock.ts";
import { SeededRandom } from "./seeded_random.ts";

/** Name of a {@link RepositorySession} method that takes part in fault injection. */
export type MemoryRepositoryOperation =
  | "contentInfo"
  | "readContent"
  | "writeContent"
  | "findManifests"
  | "readManifest"
  | "putManifest"
  | "removeManifest"
  | "flush";

/** Everything has a default. */
export interface MemoryRepositoryOptions {
  readonly clock?: Clock;
  readonly random?: Random;
  readonly splitter?: string;
  /** Called before each operation; what it throws is the operation's failure, what it waits for delays it. */
  readonly onOperation?: (operation: MemoryRepositoryOperation) => void | Promise<void>;
}

interface StoredContent {
  readonly info: ContentInfo;
  readonly data: Bytes;
}

const HASH_BYTES = 16;

/** See the module comment. */
export class MemoryRepository {
  readonly parameters: RepositoryParameters;
  /** Flushed contents by id. A test may look, and may damage them with {@link replaceContent}. */
  readonly contents = new Map<string, StoredContent>();
  /** Flushed manifests by id. */
  readonly manifests = new Map<string, Manifest>();
  readonly clock: Clock;
  readonly random: Random;
  readonly onOperation: (operation: MemoryRepositoryOperation) => void | Promise<void>;
  #lastModifiedNs = 0n;

  constructor(options: MemoryRepositoryOptions = {}) {
    this.clock = options.clock ?? new FakeClock();
    this.random = options.random ?? new SeededRandom(1);
    this.onOperation = options.onOperation ?? (() => {});
    this.parameters = {
      hashFunction: "HMAC-SHA256-128",
      hmacSecret: this.random.bytes(32),
      splitter: options.splitter ?? "FIXED-128K",
      supportsContentCompression: true,
    };
  }

  openSession(owner: SessionOwner): RepositorySession {
    return new MemoryRepositorySession(this, owner);
  }

  /** Puts other bytes behind an id, as bit rot would. Reading it back then fails with `corruption`. */
  replaceContent(id: string, data: Bytes): void {
    const stored = this.contents.get(id);
    if (stored === undefined) throw new AppError("not_found", `Replace content "${id}": absent`);
    this.contents.set(id, { info: stored.info, data });
  }

  contentId(prefix: string, data: Uint8Array): string {
    const hash = createHmac("sha256", this.parameters.hmacSecret).update(data).digest();
    return prefix + toHex(hash.subarray(0, HASH_BYTES));
  }

  /** Strictly rising, so that the order of modification is the order of the calls. */
  nextModifiedNs(): bigint {
    const nowNs = BigInt(this.clock.nowMs()) * 1_000_000n;
    this.#lastModifiedNs = nowNs > this.#lastModifiedNs ? nowNs : this.#lastModifiedNs + 1n;
    return this.#lastModifiedNs;
  }
}

class MemoryRepositorySession implements RepositorySession {
  readonly parameters: RepositoryParameters;
  readonly #repository: MemoryRepository;
  readonly #owner: SessionOwner;
  readonly #contents = new Map<string, StoredContent>();
  /** undefined marks a removal. */
  readonly #manifests = new Map<string, Manifest | undefined>();
  #closed = false;

  constructor(repository: MemoryRepository, owner: SessionOwner) {
    this.#repository = repository;
    this.#owner = owner;
    this.parameters = repository.parameters;
  }

  async contentInfo(id: string, options: Waiting): Promise<ContentInfo | undefined> {
    await this.#begin("contentInfo", options);
    return this.#content(id)?.info;
  }

  async readContent(id: string, options: Waiting): Promise<Bytes> {
    await this.#begin("readContent", options);
    const stored = this.#content(id);
    if (stored === undefined) {
      throw new AppError("not_found", `Read content "${id}": no such content`);
    }
    const prefix = id.length % 2 === 1 ? id.slice(0, 1) : "";
    if (this.#repository.contentId(prefix, stored.data) !== id) {
      throw new AppError("corruption", `Read content "${id}": its bytes have another hash`);
    }
    return concat([stored.data]);
  }

  async writeContent(
    content: { readonly prefix: string; readonly data: Uint8Array; readonly compression: number },
    options: Waiting,
  ): Promise<string> {
    await this.#begin("writeContent", options);
    const { prefix, data } = content;
    if (!/^[g-z]?$/.test(prefix)) {
      throw new AppError("protocol", `Write content with prefix "${prefix}": wanted one of g to z`);
    }
    requireContentPrefix(this.#owner, prefix);
    const id = this.#repository.contentId(prefix, data);
    if (this.#content(id) === undefined) {
      const info: ContentInfo = {
        id,
        packedLength: data.length + 28,
        originalLength: data.length,
        timestampSeconds: Math.floor(this.#repository.clock.nowMs() / 1000),
        packBlobId: (prefix === "" ? "p" : "q") + "0".repeat(32),
        packOffset: 32,
        deleted: false,
        formatVersion: 3,
      };
      this.#contents.set(id, { info, data: concat([data]) });
    }
    return id;
  }

  async findManifests(labels: Labels, options: Waiting): Promise<readonly ManifestMetadata[]> {
    await this.#begin("findManifests", options);
    const visible = new Map<string, Manifest | undefined>(this.#repository.manifests);
    for (const [id, manifest] of this.#manifests) visible.set(id, manifest);
    const wanted = Object.entries(labels);
    return [...visible.values()]
      .filter((manifest) => manifest !== undefined)
      .filter((manifest) => wanted.every(([key, value]) => manifest.labels[key] === value))
      .filter((manifest) => manifestAccess(this.#owner, manifest.labels) !== "none")
      .sort((a, b) => a.modifiedNs < b.modifiedNs ? -1 : 1)
      .map(({ id, labels, modifiedNs, length }) => ({ id, labels, modifiedNs, length }));
  }

  async readManifest(id: string, options: Waiting): Promise<Manifest> {
    await this.#begin("readManifest", options);
    const manifest = this.#manifest(id, "Read");
    requireRead(this.#owner, manifest.labels);
    return { ...manifest, json: concat([manifest.json]) };
  }

  async putManifest(
    manifest: { readonly labels: Labels; readonly json: Uint8Array },
    options: Waiting,
  ): Promise<string> {
    await this.#begin("putManifest", options);
    const { labels, json } = manifest;
    if (labels.type === undefined) {
      throw new AppError("protocol", 'Put manifest: label "type" is missing');
    }
    requireFull(this.#owner, labels);
    try {
      JSON.parse(fromUtf8(json));
    } catch (cause) {
      throw new AppError("protocol", `Put manifest of type "${labels.type}": not a JSON document`, {
        cause,
      });
    }
    const id = toHex(this.#repository.random.bytes(16));
    this.#manifests.set(id, {
      id,
      labels: { ...labels },
      modifiedNs: this.#repository.nextModifiedNs(),
      length: json.length,
      json: concat([json]),
    });
    return id;
  }

  async removeManifest(id: string, options: Waiting): Promise<void> {
    await this.#begin("removeManifest", options);
    requireFull(this.#owner, this.#manifest(id, "Remove").labels);
    this.#manifests.set(id, undefined);
  }

  async flush(options: Waiting): Promise<void> {
    await this.#begin("flush", options);
    for (const [id, content] of this.#contents) {
      if (!this.#repository.contents.has(id)) this.#repository.contents.set(id, content);
    }
    for (const [id, manifest] of this.#manifests) {
      if (manifest === undefined) this.#repository.manifests.delete(id);
      else this.#repository.manifests.set(id, manifest);
    }
    this.#contents.clear();
    this.#manifests.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#contents.clear();
    this.#manifests.clear();
    return Promise.resolve();
  }

  #content(id: string): StoredContent | undefined {
    return this.#contents.get(id) ?? this.#repository.contents.get(id);
  }

  #manifest(id: string, action: string): Manifest {
    const manifest = this.#manifests.has(id)
      ? this.#manifests.get(id)
      : this.#repository.manifests.get(id);
    if (manifest === undefined) {
      throw new AppError("not_found", `${action} manifest "${id}": no such manifest`);
    }
    return manifest;
  }

  async #begin(operation: MemoryRepositoryOperation, options: Waiting): Promise<void> {
    options.signal.throwIfAborted();
    await this.#repository.onOperation(operation);
    options.signal.throwIfAborted();
    if (this.#closed) {
      throw new AppError("cancelled", `Use repository session (${operation}): it is closed`);
    }
  }
}
