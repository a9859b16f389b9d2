/**
 * A repository in Kopia's format version 3 on a {@link BlobStore}, owned by this process alone while it is open. It only
 * ever appends: nothing is deleted but its own session markers (reference/kopia.md 4.2, "B-lite").
 *
 * Memory: the index (about 33 bytes per content), all manifests, `uploadBytesMax` of packs on their way, and for each
 * session that writes two open packs, two that wait for the budget, and its pending entries.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { ByteBudget } from "../../base/byte_budget.ts";
import type { Clock, Random } from "../../base/clock.ts";
import { AppError, isKind } from "../../base/failure.ts";
import {
  BLOB_CONFIG_ID,
  decodeFormatBlob,
  DEFAULT_EPOCHS,
  encodeBlobConfig,
  encodeFormatBlob,
  FORMAT_BLOB_ID,
  FORMAT_VERSION,
  type RepositoryFormat,
} from "../../codec/kopia/format.ts";
import { NONCE_BYTES } from "../../codec/kopia/cipher.ts";
import { KEY_ALGO_SCRYPT } from "../../codec/kopia/kdf.ts";
import type { BlobStore } from "../../ports/blob_store.ts";
import type { RepositoryParameters, RepositorySession } from "../../ports/repository_session.ts";
import type { SessionOwner } from "./authorization.ts";
import { CommittedIndex } from "./committed_index.ts";
import { CommittedManifests } from "./committed_manifests.ts";
import { ContentCodec } from "./content_codec.ts";
import { WriteSession } from "./write_session.ts";

/** Bounds of a repository. */
export interface RepositoryLimits {
  /** Packs that are being stored at the same time, over all sessions; a bigger one is stored alone. */
  readonly uploadBytesMax: number;
  /** The same in packs, however small. */
  readonly uploadsMax: number;
  readonly sessionsMax: number;
  /** Contents of a session that wait for their index: about 350 bytes of memory each. */
  readonly batchContentsMax: number;
}

/** What {@link openRepository} uses for limits that are not given. */
export const DEFAULT_LIMITS: RepositoryLimits = {
  uploadBytesMax: 64 << 20,
  uploadsMax: 8,
  sessionsMax: 64,
  batchContentsMax: 100_000,
};

/** Packs and indexes: what cannot be read without the format blob. */
const DATA_PREFIXES = ["p", "q", "x"];
const KEY_BYTES = 32;

/** What a repository needs. */
export interface RepositoryDeps {
  readonly store: BlobStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly password: string;
  readonly limits?: Partial<RepositoryLimits>;
}

/** Settings of a new repository; see design decision 6 for the defaults. */
export interface NewRepositoryOptions extends Waiting {
  /** `FIXED-128K` unless told. */
  readonly splitter?: string;
}

/** Numbers for status and metrics. */
export interface RepositoryStats {
  /** Index entries: contents, where one that two sessions wrote at once may count twice. */
  readonly contents: number;
  readonly packs: number;
  /** Bytes of all packs. */
  readonly bytes: number;
}

/** Who opens a session, and why: `purpose` is for people. */
export interface SessionRequest extends SessionOwner {
  readonly purpose: string;
}

/**
 * Creates a repository in an empty store. `conflict` when the store holds one, or anything that looks like a part of one;
 * what an interrupted creation left does not count.
 */
export async function createRepository(
  deps: RepositoryDeps,
  options: NewRepositoryOptions,
): Promise<void> {
  const { store, random, password } = deps;
  await using _ = await store.lock(options);
  for (const prefix of [FORMAT_BLOB_ID, ...DATA_PREFIXES]) {
    for await (const blob of store.list(prefix, options)) {
      throw new AppError(
        "conflict",
        `Create repository in ${store.description}: it holds "${blob.id}" already`,
        { hint: "use an empty place" },
      );
    }
  }
  const format: RepositoryFormat = {
    uniqueId: random.bytes(KEY_BYTES),
    hash: "HMAC-SHA256-128",
    encryption: "CHACHA20-POLY1305-HMAC-SHA256",
    splitter: options.splitter ?? "FIXED-128K",
    hmacSecret: random.bytes(KEY_BYTES),
    masterKey: random.bytes(KEY_BYTES),
    version: FORMAT_VERSION,
    maxPackSizeBytes: 20 << 20,
    indexVersion: 2,
    epochs: DEFAULT_EPOCHS,
  };
  const seal = () => ({ password, nonce: random.bytes(NONCE_BYTES), keyAlgo: KEY_ALGO_SCRYPT });
  const noLock = { retentionMode: "", retentionPeriodMs: 0 };
  const blobConfig = encodeBlobConfig(noLock, format.uniqueId, seal());
  await store.put(BLOB_CONFIG_ID, [blobConfig], options);
  // The format blob makes it a repository: last.
  await store.put(FORMAT_BLOB_ID, [encodeFormatBlob(format, seal())], options);
}

/**
 * Opens a repository. `not_found` when the store holds none, `permission` for a wrong password, `config` for features that
 * klio does not have, `conflict` while another process has it open, `corruption` when it is damaged.
 */
export async function openRepository(
  deps: RepositoryDeps,
  options: Waiting,
): Promise<Repository> {
  const format = decodeFormatBlob(await readFormatBlob(deps.store, options), deps.password);
  return await openWithFormat(deps, format, options);
}

/** The same with the format in hand: deriving its key from the password takes a good part of a second. */
export async function openWithFormat(
  deps: Omit<RepositoryDeps, "password">,
  format: RepositoryFormat,
  options: Waiting,
): Promise<Repository> {
  const { store, clock, random } = deps;
  await using stack = new AsyncDisposableStack();
  const lock = stack.use(await store.lock(options));
  const codec = new ContentCodec(format, random);
  const { refreshFrequencyMs } = format.epochs;
  const index = await CommittedIndex.load({ store, codec, clock, refreshFrequencyMs }, options);
  const manifests = new CommittedManifests({ store, codec, index, clock });
  await manifests.refresh(options);
  stack.move(); // the repository releases the lock from here on
  const limits = { ...DEFAULT_LIMITS, ...deps.limits };
  return new Repository({ store, clock, random, limits, lock, format, codec, index, manifests });
}

/** An open repository. */
export class Repository implements AsyncDisposable {
  readonly parameters: RepositoryParameters;
  readonly #deps: OpenedDeps;
  readonly #uploads: ByteBudget;
  readonly #sessions = new Set<RepositorySession>();
  #closing: Promise<void> | undefined;

  /** Use {@link openRepository}. */
  constructor(deps: OpenedDeps) {
    const { format, limits } = deps;
    this.#deps = deps;
    this.#uploads = new ByteBudget({
      bytesMax: limits.uploadBytesMax,
      itemsMax: limits.uploadsMax,
    });
    this.parameters = {
      hashFunction: format.hash,
      hmacSecret: format.hmacSecret,
      splitter: format.splitter,
      supportsContentCompression: true,
    };
  }

  /** Opens a session for an authenticated owner. `exhausted` when too many are open. */
  async openSession(request: SessionRequest, options: Waiting): Promise<RepositorySession> {
    options.signal.throwIfAborted();
    const { limits } = this.#deps;
    await this.#deps.index.refreshIfDue(options);
    await this.#deps.manifests.refresh(options);
    if (this.#closing !== undefined) {
      throw new AppError(
        "cancelled",
        `Open session "${request.purpose}": the repository is closed`,
      );
    }
    if (this.#sessions.size >= limits.sessionsMax) {
      throw new AppError(
        "exhausted",
        `Open session "${request.purpose}": ${this.#sessions.size} are open, the most allowed`,
      );
    }
    const { store, codec, index, manifests, clock, random, format } = this.#deps;
    const session = new WriteSession({
      store,
      codec,
      index,
      clock,
      random,
      uploads: this.#uploads,
      owner: { user: request.user, host: request.host },
      packBytesMax: format.maxPackSizeBytes,
      batchContentsMax: limits.batchContentsMax,
      parameters: this.parameters,
      manifests,
      onClose: (closed) => this.#sessions.delete(closed),
    });
    this.#sessions.add(session);
    return session;
  }

  /** Counts contents and packs; lists the packs of the store. */
  async stats(options: Waiting): Promise<RepositoryStats> {
    let packs = 0;
    let bytes = 0;
    for (const prefix of ["p", "q"]) {
      for await (const blob of this.#deps.store.list(prefix, options)) {
        packs++;
        bytes += blob.sizeBytes;
      }
    }
    return { contents: this.#deps.index.count, packs, bytes };
  }

  /** Closes the sessions, dropping what they did not flush, and lets go of the store. Idempotent; never throws. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#sessions].map((session) => session[Symbol.asyncDispose]()));
    await this.#deps.lock[Symbol.asyncDispose]();
  }
}

/** What an opened repository consists of. */
interface OpenedDeps {
  readonly store: BlobStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: RepositoryLimits;
  readonly lock: AsyncDisposable;
  readonly format: RepositoryFormat;
  readonly codec: ContentCodec;
  readonly index: CommittedIndex;
  readonly manifests: CommittedManifests;
}

async function readFormatBlob(store: BlobStore, options: Waiting): Promise<Uint8Array> {
  try {
    return await store.get(FORMAT_BLOB_ID, options);
  } catch (cause) {
    if (!isKind(cause, "not_found")) throw cause;
    for (const prefix of DATA_PREFIXES) {
      for await (const blob of store.list(prefix, options)) {
        throw new AppError(
          "corruption",
          `Open repository in ${store.description}: "${FORMAT_BLOB_ID}" is missing, yet there is "${blob.id}"`,
          { cause, hint: "restore the format blob from a copy; without it nothing can be read" },
        );
      }
    }
    throw new AppError(
      "not_found",
      `Open repository in ${store.description}: there is none`,
      { cause, hint: "create it first, or check the path" },
    );
  }
}
