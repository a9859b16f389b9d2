/**
 * Serves Kopia's repository protocol over a {@link RepositorySession} per stream. Requests of one stream run concurrently,
 * bounded by count and bytes, and are answered in any order; a request that fails is answered with an error and the stream
 * goes on. A stream that ends without `flush` leaves nothing behind: unlike stock kopia we do not flush for a client that is
 * gone, because its manifests may refer to contents that never arrived.
 *
 * @module
 */

import type { Waiting } from "../base/abort.ts";
import { ByteBudget } from "../base/byte_budget.ts";
import type { Bytes } from "../base/bytes.ts";
import { AppError, failureKind, findAppError } from "../base/failure.ts";
import { TaskGroup } from "../base/task_group.ts";
import {
  ERROR_CODE,
  REPOSITORY_SERVICE,
  SessionRequest,
  SessionResponse,
} from "../codec/messages/kopia_repository.ts";
import { decode } from "../codec/protobuf/decode.ts";
import { encode } from "../codec/protobuf/encode.ts";
import type { MessageInput, MessageValue } from "../codec/protobuf/schema.ts";
import type { Identity } from "../domain/identity.ts";
import type { ManifestMetadata, RepositorySession } from "../ports/repository_session.ts";
import type { RpcCall, RpcService } from "../ports/rpc.ts";
import { statusOf } from "./status.ts";

/** Who opens a session, by certificate, and what for. */
export interface SessionOpening extends Identity {
  readonly purpose: string;
}

/** Opens the repository's side of a session. */
export type OpenSession = (
  opening: SessionOpening,
  options: Waiting,
) => Promise<RepositorySession>;

/** Requests of one stream that are worked on at once, by number and bytes. */
const REQUEST_LIMITS = { bytesMax: 32 << 20, itemsMax: 64 };
const PAGE_SIZE_MAX = 1000;

/** The service. */
export function kopiaSessionService(openSession: OpenSession): RpcService {
  return {
    name: REPOSITORY_SERVICE,
    methods: { Session: (call) => serveSession(openSession, call) },
  };
}

type Request = MessageValue<typeof SessionRequest>;
type Body = NonNullable<Request["request"]>;
type Response = NonNullable<MessageInput<typeof SessionResponse>["response"]>;

async function serveSession(openSession: OpenSession, call: RpcCall): Promise<void> {
  const { user, cluster } = call.identity;
  checkMetadata(call, user, cluster);
  const first = await receiveRequest(call);
  if (first?.body.request?.kind !== "initializeSession") {
    throw new AppError("protocol", "Open repository session: wanted initialize_session first");
  }
  const { purpose } = first.body.request.value;
  const waiting = { signal: call.signal };
  await using session = await openSession({ user, cluster, purpose }, waiting);
  await reply(call, first.body.requestId, {
    kind: "initializeSession",
    value: { parameters: session.parameters },
  });
  const budget = new ByteBudget(REQUEST_LIMITS);
  await using tasks = new TaskGroup(call.signal);
  for (;;) {
    const request = await receiveRequest(call);
    if (request === undefined) break;
    await budget.acquire(request.sizeBytes, { signal: tasks.signal });
    tasks.start(async (signal) => {
      try {
        await serveRequest(call, session, request.body, { signal });
      } finally {
        budget.release(request.sizeBytes);
      }
    });
  }
  await tasks.join();
}

/** Stock servers and clients name the user in metadata; it must not say anything else than the certificate. */
function checkMetadata(call: RpcCall, user: string, host: string): void {
  const [username] = call.metadata("kopia-username");
  const [hostname] = call.metadata("kopia-hostname");
  if (username !== user || hostname !== host) {
    throw new AppError(
      "permission",
      `Open repository session as "${username ?? ""}@${
        hostname ?? ""
      }": the certificate is for "${user}@${host}"`,
    );
  }
}

async function receiveRequest(
  call: RpcCall,
): Promise<{ readonly body: Request; readonly sizeBytes: number } | undefined> {
  const message: Bytes | undefined = await call.receive();
  if (message === undefined) return undefined;
  return { body: decode(SessionRequest, message), sizeBytes: message.length };
}

async function reply(
  call: RpcCall,
  requestId: number,
  response: Response,
  hasMore = false,
): Promise<void> {
  await call.send(encode(SessionResponse, { requestId, hasMore, response }));
}

async function serveRequest(
  call: RpcCall,
  session: RepositorySession,
  { requestId, request }: Request,
  options: Waiting,
): Promise<void> {
  try {
    if (request?.kind === "findManifests") {
      await replyManifests(call, requestId, session, request.value, options);
    } else await reply(call, requestId, await answer(session, request, options));
  } catch (error) {
    options.signal.throwIfAborted(); // nobody is left to answer
    await reply(call, requestId, errorResponse(request?.kind, error));
  }
}

async function answer(
  session: RepositorySession,
  request: Body | undefined,
  options: Waiting,
): Promise<Response> {
  switch (request?.kind) {
    case "getContentInfo": {
      const { contentId } = request.value;
      const info = await session.contentInfo(contentId, options);
      if (info === undefined) throw new AppError("not_found", `Find content "${contentId}"`);
      return { kind: "getContentInfo", value: { info } };
    }
    case "getContent":
      return {
        kind: "getContent",
        value: { data: await session.readContent(request.value.contentId, options) },
      };
    case "writeContent": {
      const { prefix, data, compression } = request.value;
      const contentId = await session.writeContent({ prefix, data, compression }, options);
      return { kind: "writeContent", value: { contentId } };
    }
    case "flush":
      await session.flush(options);
      return { kind: "flush", value: {} };
    case "getManifest": {
      const manifest = await session.readManifest(request.value.manifestId, options);
      return {
        kind: "getManifest",
        value: { jsonData: manifest.json, metadata: metadataMessage(manifest) },
      };
    }
    case "putManifest": {
      const { labels, jsonData: json } = request.value;
      const manifestId = await session.putManifest({ labels, json }, options);
      return { kind: "putManifest", value: { manifestId } };
    }
    case "deleteManifest":
      await session.removeManifest(request.value.manifestId, options);
      return { kind: "deleteManifest", value: {} };
    case "prefetchContents":
      // An optimisation that we have no use for: all of it is known, nothing is fetched.
      return { kind: "prefetchContents", value: { contentIds: request.value.contentIds } };
    case "applyRetentionPolicy":
      // Retention is by whole backups and belongs to the server: a client's request expires nothing.
      return { kind: "applyRetentionPolicy", value: {} };
    case "sendNotification":
      return { kind: "sendNotification", value: {} };
    case "getCapacity":
      return { kind: "error", value: { code: ERROR_CODE.notAVolume, message: "not a volume" } };
    default:
      throw new AppError(
        "protocol",
        `Serve repository request: unexpected ${request?.kind ?? "kind"}`,
      );
  }
}

async function replyManifests(
  call: RpcCall,
  requestId: number,
  session: RepositorySession,
  request: { readonly labels: Readonly<Record<string, string>>; readonly pageSize: number },
  options: Waiting,
): Promise<void> {
  const found = await session.findManifests(request.labels, options);
  const pageSize = request.pageSize > 0 ? Math.min(request.pageSize, PAGE_SIZE_MAX) : PAGE_SIZE_MAX;
  let offset = 0;
  for (; found.length - offset > pageSize; offset += pageSize) {
    const page = found.slice(offset, offset + pageSize).map(metadataMessage);
    await reply(call, requestId, { kind: "findManifests", value: { metadata: page } }, true);
  }
  const rest = found.slice(offset).map(metadataMessage);
  await reply(call, requestId, { kind: "findManifests", value: { metadata: rest } });
}

function metadataMessage(
  manifest: ManifestMetadata,
): { id: string; modTimeNanos: bigint; length: number; labels: Readonly<Record<string, string>> } {
  const { id, modifiedNs: modTimeNanos, length, labels } = manifest;
  return { id, modTimeNanos, length, labels };
}

function errorResponse(request: Body["kind"] | undefined, error: unknown): Response {
  return {
    kind: "error",
    value: {
      code: errorCode(request, error),
      message: statusOf(error).message,
      klioKind: failureKind(error),
      klioHint: findAppError(error)?.hint,
    },
  };
}

function errorCode(request: Body["kind"] | undefined, error: unknown): number {
  switch (failureKind(error)) {
    case "not_found":
      return request === "getContent" || request === "getContentInfo"
        ? ERROR_CODE.contentNotFound
        : ERROR_CODE.manifestNotFound;
    case "permission":
      return ERROR_CODE.accessDenied;
    case "usage":
    case "protocol":
      return ERROR_CODE.clientError;
    default:
      return ERROR_CODE.unknownError;
  }
}
