/**
 * Client of Kopia's repository protocol: one connection and one stream per session, requests pipelined and matched by id.
 * Nothing is retried: when the stream breaks, every pending and later call of the session fails with what broke it.
 *
 * @module
 */

import { X509Certificate } from "node:crypto";
import { abortable, deadline, type Waiting } from "../../base/abort.ts";
import type { Bytes } from "../../base/bytes.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError, type FailureKind } from "../../base/failure.ts";
import {
  ERROR_CODE,
  REPOSITORY_SERVICE,
  SessionRequest,
  SessionResponse,
} from "../../codec/messages/kopia_repository.ts";
import { decode } from "../../codec/protobuf/decode.ts";
import { encode } from "../../codec/protobuf/encode.ts";
import type { MessageInput, MessageValue } from "../../codec/protobuf/schema.ts";
import { type Identity, parseIdentity } from "../../domain/identity.ts";
import type {
  ContentInfo,
  Labels,
  Manifest,
  ManifestMetadata,
  RepositoryParameters,
  RepositorySession,
} from "../../ports/repository_session.ts";
import { Channel, type ClientCall, type ServerAddress } from "./channel.ts";
import { isFailureKind } from "./errors.ts";
import { BASE_MESSAGE_BYTES_MAX } from "./options.ts";

const SESSION_METHOD = `/${REPOSITORY_SERVICE}/Session`;
const MANIFESTS_PER_PAGE = 1000;
/** Limits of the server's answers to one find: a hundred times more manifests than a cluster has. */
const MANIFESTS_MAX = 1_000_000;
/** How long a session that is closed waits for the server to end it in good order. */
const CLOSE_TIMEOUT_MS = 5_000;

/** What a session needs. */
export interface RepositoryClientOptions {
  readonly server: ServerAddress;
  /** For the server's logs, for example `klio backup run`. */
  readonly purpose: string;
  readonly clock: Clock;
  /** Who we are to a server that asks for more than the certificate; its password is empty unless given. */
  readonly login?: { readonly user: string; readonly host: string; readonly password: string };
}

/** Connects and opens a session. Disposing it closes the connection; what was not flushed is dropped. */
export async function openRepositorySession(
  options: RepositoryClientOptions,
  waiting: Waiting,
): Promise<RepositorySession> {
  const { user, host, password } = options.login ?? certificateLogin(options.server);
  const channel = new Channel({
    server: options.server,
    messageBytesMax: BASE_MESSAGE_BYTES_MAX,
    clock: options.clock,
  });
  const closed = new AbortController();
  try {
    const call = channel.open(SESSION_METHOD, {
      signal: closed.signal,
      metadata: {
        "kopia-username": user,
        "kopia-hostname": host,
        "kopia-password": password,
        "kopia-version": "klio",
      },
    });
    const stream = new RequestStream(call, closed.signal);
    const response = await stream.ask({
      kind: "initializeSession",
      value: { purpose: options.purpose, readOnly: false },
    }, waiting);
    const { parameters } = expectKind(response, "initializeSession");
    if (parameters === undefined) throw wrongAnswer("initializeSession");
    return new NetworkSession(parameters, stream, channel);
  } catch (error) {
    closed.abort(error);
    channel[Symbol.dispose]();
    throw error;
  }
}

function certificateLogin(
  server: ServerAddress,
): { user: string; host: string; password: string } {
  const identity: Identity = parseIdentity(commonName(server.tls.certificatePem));
  return { user: identity.user, host: identity.cluster, password: "" };
}

function commonName(pem: string): string {
  try {
    return new X509Certificate(pem).toLegacyObject().subject.CN?.toString() ?? "";
  } catch (cause) {
    throw new AppError("config", "Read client certificate: not a valid certificate", { cause });
  }
}

type RequestBody = NonNullable<MessageInput<typeof SessionRequest>["request"]>;
type Response = NonNullable<MessageValue<typeof SessionResponse>["response"]>;
type RequestValues = { [R in RequestBody as R["kind"]]: R["value"] };
type ResponseValues = { [R in Response as R["kind"]]: R["value"] };
/** Kinds that are answered with their own kind, once. */
type Asked = Exclude<keyof RequestValues & keyof ResponseValues, "findManifests">;

/** Answers to one request: more than one only for find_manifests. */
interface Pending {
  readonly pages: Response[];
  resolve(pages: readonly Response[]): void;
  reject(error: unknown): void;
}

/** Requests out, answers in, matched by id. */
class RequestStream {
  readonly #call: ClientCall;
  readonly #pending = new Map<number, Pending>();
  /** Settles when the stream has ended; never rejects. */
  readonly ended: Promise<void>;
  #nextId = 1;
  #failure: { readonly error: unknown } | undefined;

  constructor(call: ClientCall, signal: AbortSignal) {
    this.#call = call;
    this.ended = this.#receiveAll(signal);
  }

  async ask(request: RequestBody, options: Waiting): Promise<Response> {
    const pages = await this.askPages(request, options);
    const [only] = pages;
    if (only === undefined || pages.length > 1) throw wrongAnswer(request.kind);
    return only;
  }

  async askPages(request: RequestBody, options: Waiting): Promise<readonly Response[]> {
    options.signal.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure.error;
    const requestId = this.#nextId++;
    const answered = Promise.withResolvers<readonly Response[]>();
    answered.promise.catch(() => {/* heard of below, or nobody waits any more */});
    this.#pending.set(requestId, {
      pages: [],
      resolve: answered.resolve,
      reject: answered.reject,
    });
    try {
      await this.#call.send(encode(SessionRequest, { requestId, request }), options);
    } catch (error) {
      this.#pending.delete(requestId); // not sent: no answer will come
      throw error;
    }
    // After an abort the entry stays until the answer has come, so that the answer finds its request.
    return await abortable(answered.promise, options);
  }

  halfClose(): void {
    this.#call.halfClose();
  }

  /** Fails what is pending. */
  cancel(error: unknown): void {
    this.#fail(error);
    this.#call.cancel();
  }

  async #receiveAll(signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        const message = await this.#call.receive({ signal });
        if (message === undefined) break;
        this.#dispatch(message);
      }
      this.#fail(new AppError("repository", "Use repository session: the server ended it"));
    } catch (error) {
      this.#fail(error);
      this.#call.cancel();
    }
  }

  #dispatch(message: Bytes): void {
    const { requestId, hasMore, response } = decode(SessionResponse, message);
    const pending = this.#pending.get(requestId);
    if (pending === undefined || response === undefined) {
      throw new AppError("protocol", `Receive repository response ${requestId}: nobody asked`);
    }
    if (response.kind === "error") {
      this.#pending.delete(requestId);
      pending.reject(translateError(response.value));
      return;
    }
    pending.pages.push(response);
    if (pending.pages.length * MANIFESTS_PER_PAGE > MANIFESTS_MAX) {
      throw new AppError("protocol", "Receive repository response: too many pages");
    }
    if (hasMore) return;
    this.#pending.delete(requestId);
    pending.resolve(pending.pages);
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    for (const pending of this.#pending.values()) pending.reject(this.#failure.error);
    this.#pending.clear();
  }
}

class NetworkSession implements RepositorySession {
  readonly parameters: RepositoryParameters;
  readonly #stream: RequestStream;
  readonly #channel: Channel;
  #closed: Promise<void> | undefined;

  constructor(parameters: RepositoryParameters, stream: RequestStream, channel: Channel) {
    this.parameters = parameters;
    this.#stream = stream;
    this.#channel = channel;
  }

  async contentInfo(id: string, options: Waiting): Promise<ContentInfo | undefined> {
    try {
      const { info } = await this.#ask("getContentInfo", { contentId: id }, options);
      if (info === undefined) throw wrongAnswer("getContentInfo");
      return info;
    } catch (error) {
      if (error instanceof AppError && error.kind === "not_found") return undefined;
      throw error;
    }
  }

  async readContent(id: string, options: Waiting): Promise<Bytes> {
    const { data } = await this.#ask("getContent", { contentId: id }, options);
    return data;
  }

  async writeContent(
    content: { readonly prefix: string; readonly data: Uint8Array; readonly compression: number },
    options: Waiting,
  ): Promise<string> {
    const { contentId } = await this.#ask("writeContent", content, options);
    return contentId;
  }

  async findManifests(labels: Labels, options: Waiting): Promise<readonly ManifestMetadata[]> {
    const value = { labels, pageSize: MANIFESTS_PER_PAGE };
    const pages = await this.#stream.askPages({ kind: "findManifests", value }, options);
    return pages.flatMap((page) =>
      expectKind(page, "findManifests").metadata.map(manifestMetadata)
    );
  }

  async readManifest(id: string, options: Waiting): Promise<Manifest> {
    const { jsonData, metadata } = await this.#ask("getManifest", { manifestId: id }, options);
    if (metadata === undefined) throw wrongAnswer("getManifest");
    return { ...manifestMetadata(metadata), json: jsonData };
  }

  async putManifest(
    manifest: { readonly labels: Labels; readonly json: Uint8Array },
    options: Waiting,
  ): Promise<string> {
    const value = { jsonData: manifest.json, labels: manifest.labels };
    const { manifestId } = await this.#ask("putManifest", value, options);
    return manifestId;
  }

  async removeManifest(id: string, options: Waiting): Promise<void> {
    await this.#ask("deleteManifest", { manifestId: id }, options);
  }

  async flush(options: Waiting): Promise<void> {
    await this.#ask("flush", {}, options);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#stream.halfClose();
    using limit = deadline({ timeoutMs: CLOSE_TIMEOUT_MS, what: "Close repository session" });
    try {
      await abortable(this.#stream.ended, limit);
    } catch (error) {
      this.#stream.cancel(error);
      await this.#stream.ended;
    }
    this.#channel[Symbol.dispose]();
  }

  async #ask<K extends Asked>(
    kind: K,
    value: RequestValues[K],
    options: Waiting,
  ): Promise<ResponseValues[K]> {
    // A kind with its own value is a request; the type system loses that for a kind that it does not know.
    const request = { kind, value } as RequestBody;
    return expectKind(await this.#stream.ask(request, options), kind);
  }
}

function expectKind<K extends keyof ResponseValues>(
  response: Response,
  kind: K,
): ResponseValues[K] {
  if (response.kind !== kind) throw wrongAnswer(kind);
  return response.value as ResponseValues[K];
}

function wrongAnswer(request: string): AppError {
  return new AppError("protocol", `Receive the answer to ${request}: it does not answer this`);
}

function manifestMetadata(
  message: {
    readonly id: string;
    readonly labels: Labels;
    readonly modTimeNanos: bigint;
    readonly length: number;
  },
): ManifestMetadata {
  const { id, labels, modTimeNanos: modifiedNs, length } = message;
  return { id, labels, modifiedNs, length };
}

/** Kinds for servers that tell only a code. */
const KIND_OF_CODE: ReadonlyMap<number, FailureKind> = new Map([
  [ERROR_CODE.unknownError, "repository"],
  [ERROR_CODE.clientError, "usage"],
  [ERROR_CODE.contentNotFound, "not_found"],
  [ERROR_CODE.manifestNotFound, "not_found"],
  [ERROR_CODE.objectNotFound, "not_found"],
  [ERROR_CODE.accessDenied, "permission"],
  [ERROR_CODE.streamBroken, "repository"],
]);

function translateError(
  error: {
    readonly code: number;
    readonly message: string;
    readonly klioKind: string;
    readonly klioHint: string;
  },
): AppError {
  if (isFailureKind(error.klioKind)) {
    return new AppError(
      error.klioKind,
      error.message,
      error.klioHint === "" ? {} : { hint: error.klioHint },
    );
  }
  const kind = KIND_OF_CODE.get(error.code) ?? "repository";
  return new AppError(kind, `Ask the repository server: ${error.message}`, {
    data: { code: error.code },
  });
}
