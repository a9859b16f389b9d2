/**
 * One session with the repository, in the server's own process (reference/kopia.md 1.6 to 1.9). It checks what its owner may
 * do, finds what is stored already, and collects the rest in a {@link WriteBatch} that `flush` commits. Nothing a client
 * says is believed: ids are computed here.
 *
 * Contents (never manifests) of a long session are committed every `batchContentsMax` contents, which bounds the
 * memory of pending entries and lets an interrupted backup find its contents again. When an upload or a commit failed, the
 * session has lost data it had accepted: from then on every call throws that failure.
 *
 * An aborted `flush` goes on in the background until the session closes; a later `flush` waits for it.
 *
 * @module
 */

import { abortable, type Waiting } from "../../base/abort.ts";
import { type Bytes, equalBytes, fromUtf8, toHex, utf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { isContentPrefix } from "../../codec/kopia/content_id.ts";
import type { IndexEntry } from "../../codec/kopia/index.ts";
import type { StoredManifest } from "../../codec/kopia/manifests.ts";
import type {
  ContentInfo,
  Labels,
  Manifest,
  ManifestMetadata,
  RepositoryParameters,
  RepositorySession,
} from "../../ports/repository_session.ts";
import { manifestAccess, requireContentPrefix, requireFull, requireRead } from "./authorization.ts";
import type { CommittedManifests } from "./committed_manifests.ts";
import { readStoredContent } from "./stored_content.ts";
import { Turns } from "./turns.ts";
import { WriteBatch, type WriteBatchDeps } from "./write_batch.ts";

/** Longest content that is accepted: a message of the repository protocol is not longer. */
export const CONTENT_BYTES_MAX = 20 << 20;
/** Longest document of a manifest. */
export const MANIFEST_BYTES_MAX = 4 << 20;
/** Labels and documents of a session's manifests that wait for a flush: they are packed as one content. */
export const BATCH_MANIFEST_BYTES_MAX = 16 << 20;

const MANIFEST_ID_BYTES = 16;

/** What a {@link WriteSession} needs. */
export interface WriteSessionDeps extends WriteBatchDeps {
  readonly parameters: RepositoryParameters;
  readonly manifests: CommittedManifests;
  /** Contents after which they are committed without a flush. */
  readonly batchContentsMax: number;
  /** Called once, when the session is closed. */
  readonly onClose: (session: WriteSession) => void;
}

/** See the module comment. */
export class WriteSession implements RepositorySession {
  readonly parameters: RepositoryParameters;
  readonly #deps: WriteSessionDeps;
  readonly #end = new AbortController();
  readonly #commits = new Turns();
  /** Batches whose commit has been asked for, oldest first. */
  readonly #committing: WriteBatch[] = [];
  #batch: WriteBatch;
  /** Of the manifests in `#batch`. */
  #manifestBytes = 0;
  #failure: { readonly error: unknown } | undefined;
  #closing: Promise<void> | undefined;

  constructor(deps: WriteSessionDeps) {
    this.#deps = deps;
    this.parameters = deps.parameters;
    this.#batch = new WriteBatch(deps, this.#end.signal);
  }

  contentInfo(id: string, options: Waiting): Promise<ContentInfo | undefined> {
    return this.#begin(options, () => {
      const entry = this.#find(id)?.entry;
      return Promise.resolve(entry === undefined ? undefined : toContentInfo(entry));
    });
  }

  readContent(id: string, options: Waiting): Promise<Bytes> {
    return this.#begin(options, async () => {
      const found = this.#find(id);
      if (found === undefined) {
        throw new AppError("not_found", `Read content "${id}": no such content`);
      }
      const { entry, sealed } = found;
      if (sealed !== undefined) return this.#deps.codec.open(entry, sealed);
      return await readStoredContent(this.#deps, entry, options);
    });
  }

  writeContent(
    content: { readonly prefix: string; readonly data: Uint8Array; readonly compression: number },
    options: Waiting,
  ): Promise<string> {
    return this.#begin(options, async () => {
      const { prefix, data, compression } = content;
      checkContent(prefix, data);
      requireContentPrefix(this.#deps.owner, prefix);
      const { id, hash } = this.#deps.codec.identify(prefix, data);
      for (;;) {
        const found = this.#find(id);
        if (found !== undefined && !found.entry.deleted) return id;
        const room = this.#batch.room();
        if (room === undefined) {
          this.#batch.write({ id, hash, data, compression, replaced: found?.entry });
          break;
        }
        await abortable(room, options); // afterwards another may have written it, or filled the room
        this.#throwIfUnusable();
      }
      if (this.#batch.count >= this.#deps.batchContentsMax) {
        this.#startCommit({ withManifests: false });
        await abortable(this.#commits.idle(), options);
        this.#throwIfUnusable();
      }
      return id;
    });
  }

  findManifests(labels: Labels, options: Waiting): Promise<readonly ManifestMetadata[]> {
    return this.#begin(options, () => {
      const ids = new Set(this.#deps.manifests.ids());
      for (const batch of this.#pending()) for (const id of batch.manifests.keys()) ids.add(id);
      const found: ManifestMetadata[] = [];
      for (const id of ids) {
        const version = this.#manifest(id);
        if (version === undefined || !matches(version.labels, labels)) continue;
        if (manifestAccess(this.#deps.owner, version.labels) === "none") continue;
        found.push(toMetadata(version));
      }
      return Promise.resolve(found.sort((a, b) => (a.modifiedNs < b.modifiedNs ? -1 : 1)));
    });
  }

  readManifest(id: string, options: Waiting): Promise<Manifest> {
    return this.#begin(options, () => {
      const version = this.#requireManifest(id, "Read");
      requireRead(this.#deps.owner, version.labels);
      return Promise.resolve({ ...toMetadata(version), json: new Uint8Array(version.data ?? []) });
    });
  }

  putManifest(
    manifest: { readonly labels: Labels; readonly json: Uint8Array },
    options: Waiting,
  ): Promise<string> {
    return this.#begin(options, () => {
      const { labels, json } = manifest;
      if (labels.type === undefined) {
        throw new AppError("protocol", 'Put manifest: label "type" is missing');
      }
      requireFull(this.#deps.owner, labels);
      checkDocument(labels.type, json);
      const id = toHex(this.#deps.random.bytes(MANIFEST_ID_BYTES));
      this.#keepManifest({
        id,
        labels: { ...labels },
        modifiedNs: this.#deps.manifests.nextModifiedNs(),
        deleted: false,
        data: new Uint8Array(json),
      });
      return Promise.resolve(id);
    });
  }

  removeManifest(id: string, options: Waiting): Promise<void> {
    return this.#begin(options, () => {
      const { labels } = this.#requireManifest(id, "Remove");
      requireFull(this.#deps.owner, labels);
      const modifiedNs = this.#deps.manifests.nextModifiedNs();
      this.#keepManifest({ id, labels, modifiedNs, deleted: true });
      return Promise.resolve();
    });
  }

  flush(options: Waiting): Promise<void> {
    return this.#begin(options, async () => {
      if (!this.#batch.isEmpty) this.#startCommit({ withManifests: true });
      await abortable(this.#commits.idle(), options);
      this.#throwIfFailed();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#end.abort(new AppError("cancelled", "Write to repository: the session was closed"));
    await this.#commits.idle();
    await this.#batch[Symbol.asyncDispose]();
    this.#deps.onClose(this);
  }

  async #begin<T>(options: Waiting, work: () => Promise<T>): Promise<T> {
    options.signal.throwIfAborted();
    this.#throwIfUnusable();
    return await work();
  }

  #throwIfUnusable(): void {
    if (this.#closing !== undefined) {
      throw new AppError("cancelled", "Use repository session: it is closed");
    }
    this.#throwIfFailed();
    this.#batch.throwIfFailed();
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Hands the current batch over to be committed and begins another one. */
  #startCommit(options: { readonly withManifests: boolean }): void {
    const batch = this.#batch;
    this.#batch = new WriteBatch(this.#deps, this.#end.signal);
    if (!options.withManifests) {
      for (const [id, version] of batch.manifests) this.#batch.manifests.set(id, version);
      batch.manifests.clear();
    } else {
      this.#manifestBytes = 0;
    }
    this.#committing.push(batch);
    void this.#commits.run(() => this.#commit(batch)); // never rejects
  }

  async #commit(batch: WriteBatch): Promise<void> {
    await using _ = batch;
    try {
      this.#throwIfFailed(); // an earlier batch held contents that this one's manifests may need
      await batch.commit();
      this.#deps.manifests.merge(batch.manifests.values());
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      this.#committing.splice(this.#committing.indexOf(batch), 1);
    }
  }

  /** Newest first. */
  *#pending(): Generator<WriteBatch> {
    yield this.#batch;
    yield* this.#committing.toReversed();
  }

  #find(
    id: string,
  ): { readonly entry: IndexEntry; readonly sealed?: Bytes | undefined } | undefined {
    for (const batch of this.#pending()) {
      const content = batch.find(id);
      if (content !== undefined) return content;
    }
    const entry = this.#deps.index.find(id);
    return entry === undefined ? undefined : { entry };
  }

  /** The version that counts; undefined when absent or removed. */
  #manifest(id: string): StoredManifest | undefined {
    let version = this.#deps.manifests.get(id);
    for (const batch of this.#pending()) {
      const pending = batch.manifests.get(id);
      if (pending === undefined) continue;
      if (version === undefined || pending.modifiedNs > version.modifiedNs) version = pending;
    }
    return version?.deleted === true ? undefined : version;
  }

  #requireManifest(id: string, action: string): StoredManifest {
    const version = this.#manifest(id);
    if (version === undefined) {
      throw new AppError("not_found", `${action} manifest "${id}": no such manifest`);
    }
    return version;
  }

  #keepManifest(version: StoredManifest): void {
    const { id, labels, data } = version;
    const sizeBytes = id.length + JSON.stringify(labels).length + (data?.length ?? 0);
    if (this.#manifestBytes + sizeBytes > BATCH_MANIFEST_BYTES_MAX) {
      throw new AppError(
        "exhausted",
        `Change manifests: ${this.#manifestBytes} bytes wait for a flush, ${sizeBytes} more are above ${BATCH_MANIFEST_BYTES_MAX}`,
      );
    }
    this.#manifestBytes += sizeBytes;
    this.#batch.manifests.set(id, version);
  }
}

function checkContent(prefix: string, data: Uint8Array): void {
  if (!isContentPrefix(prefix)) {
    throw new AppError("protocol", `Write content with prefix "${prefix}": wanted one of g to z`);
  }
  if (data.length > CONTENT_BYTES_MAX) {
    throw new AppError(
      "exhausted",
      `Write content: it has ${data.length} bytes, at most ${CONTENT_BYTES_MAX} are allowed`,
    );
  }
}

/** The document is stored as it is, inside another one: it must be one JSON value in UTF-8. */
function checkDocument(type: string, json: Uint8Array): void {
  if (json.length > MANIFEST_BYTES_MAX) {
    throw new AppError(
      "exhausted",
      `Put manifest of type "${type}": it has ${json.length} bytes, at most ${MANIFEST_BYTES_MAX} are allowed`,
    );
  }
  const text = fromUtf8(json);
  if (!equalBytes(utf8(text), json)) {
    throw new AppError("protocol", `Put manifest of type "${type}": not UTF-8`);
  }
  try {
    JSON.parse(text);
  } catch (cause) {
    throw new AppError("protocol", `Put manifest of type "${type}": not a JSON document`, {
      cause,
    });
  }
}

function toContentInfo(entry: IndexEntry): ContentInfo {
  const { compression: _, encryptionKeyId: __, ...info } = entry;
  return info;
}

function toMetadata(version: StoredManifest): ManifestMetadata {
  const { id, labels, modifiedNs, data } = version;
  return { id, labels: { ...labels }, modifiedNs, length: data?.length ?? 0 };
}

function matches(labels: Labels, wanted: Labels): boolean {
  return Object.entries(wanted).every(([key, value]) => labels[key] === value);
}
