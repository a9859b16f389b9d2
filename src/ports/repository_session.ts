/**
 * One session with a Kopia repository, with the vocabulary of the repository-server protocol (reference/kopia.md section
 * 1). Implementations: `features/repository` (direct, in the server process) and `adapters/grpc` (over the network); both
 * pass the same contract suite. Order that every writer keeps: contents, then manifests that refer to them, then `flush`;
 * nothing is durable or visible to others before `flush` resolves.
 *
 * @module
 */

import type { Waiting } from "../base/abort.ts";

/** All that a client learns of a repository. */
export interface RepositoryParameters {
  /** For example `HMAC-SHA256-128`. */
  readonly hashFunction: string;
  readonly hmacSecret: Uint8Array<ArrayBuffer>;
  /** For example `FIXED-128K`. */
  readonly splitter: string;
  readonly supportsContentCompression: boolean;
}

/** What is known of a stored content. */
export interface ContentInfo {
  readonly id: string;
  readonly packedLength: number;
  readonly originalLength: number;
  readonly timestampSeconds: number;
  readonly packBlobId: string;
  readonly packOffset: number;
  readonly deleted: boolean;
  readonly formatVersion: number;
}

/** Label set of a manifest; `type` is mandatory. */
export type Labels = Readonly<Record<string, string>>;

/** A manifest without its document. */
export interface ManifestMetadata {
  readonly id: string;
  readonly labels: Labels;
  /** Nanoseconds since the epoch: exceeds 2^53. */
  readonly modifiedNs: bigint;
  /** Length of the JSON document, in bytes. */
  readonly length: number;
}

/** A manifest with its JSON document as bytes. */
export interface Manifest extends ManifestMetadata {
  readonly json: Uint8Array<ArrayBuffer>;
}

/** See the module comment. */
export interface RepositorySession extends AsyncDisposable {
  readonly parameters: RepositoryParameters;
  /** undefined when the content does not exist. */
  contentInfo(id: string, options: Waiting): Promise<ContentInfo | undefined>;
  /** The plain content, owned. `not_found` when absent, `corruption` when it cannot be decoded. */
  readContent(id: string, options: Waiting): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Stores a content unless it exists and returns its id (prefix + hex hash). `data` is borrowed until it resolves, raw;
   * the repository compresses with the codec of this header id (0 = none) and encrypts.
   */
  writeContent(
    content: { readonly prefix: string; readonly data: Uint8Array; readonly compression: number },
    options: Waiting,
  ): Promise<string>;
  findManifests(labels: Labels, options: Waiting): Promise<readonly ManifestMetadata[]>;
  /** `not_found` when absent. */
  readManifest(id: string, options: Waiting): Promise<Manifest>;
  putManifest(
    manifest: { readonly labels: Labels; readonly json: Uint8Array },
    options: Waiting,
  ): Promise<string>;
  /** `not_found` when absent. */
  removeManifest(id: string, options: Waiting): Promise<void>;
  /** Makes everything written in this session durable and visible. */
  flush(options: Waiting): Promise<void>;
}
