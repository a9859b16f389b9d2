/**
 * What the repository protocol promises beyond the port's contract: pages, order, limits, failures on the way.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Channel } from "../../src/adapters/grpc/channel.ts";
import { BASE_MESSAGE_BYTES_MAX } from "../../src/adapters/grpc/options.ts";
import { openRepositorySession } from "../../src/adapters/grpc/repository_client.ts";
import type { GrpcServer } from "../../src/adapters/grpc/server.ts";
import { SYSTEM_CLOCK } from "../../src/adapters/process/clock.ts";
import { abortable, type Waiting } from "../../src/base/abort.ts";
import { utf8 } from "../../src/base/bytes.ts";
import { AppError, type FailureKind, isKind } from "../../src/base/failure.ts";
import {
  ERROR_CODE,
  REPOSITORY_SERVICE,
  SessionRequest,
  SessionResponse,
} from "../../src/codec/messages/kopia_repository.ts";
import { decode } from "../../src/codec/protobuf/decode.ts";
import { encode } from "../../src/codec/protobuf/encode.ts";
import type { MessageInput, MessageValue } from "../../src/codec/protobuf/schema.ts";
import type { RepositorySession } from "../../src/ports/repository_session.ts";
import { kopiaSessionService } from "../../src/rpc/kopia_session.ts";
import { MemoryRepository, type MemoryRepositoryOptions } from "../support/memory_repository.ts";
import { addressOf, startServer } from "../support/network.ts";

const waiting = { signal: new AbortController().signal };
const METADATA = {
  "kopia-username": "klio",
  "kopia-hostname": "cluster-a",
  "kopia-password": "",
};
const LABELS = { type: "snapshot", username: "klio", hostname: "cluster-a" };
const ABSENT = "00112233445566778899aabbccddeeff";

type Request = NonNullable<MessageInput<typeof SessionRequest>["request"]>;
type Response = MessageValue<typeof SessionResponse>;

async function serve(options: MemoryRepositoryOptions = {}): Promise<GrpcServer> {
  const repository = new MemoryRepository(options);
  const service = kopiaSessionService(({ user, cluster }) =>
    Promise.resolve(repository.openSession({ user, host: cluster }))
  );
  return await startServer([service], { messageBytesMax: BASE_MESSAGE_BYTES_MAX });
}

function open(server: GrpcServer): Promise<RepositorySession> {
  const address = addressOf(server.port);
  return openRepositorySession({ server: address, purpose: "t", clock: SYSTEM_CLOCK }, waiting);
}

/** Sends requests as a foreign client would and collects all answers. */
async function talk(
  server: GrpcServer,
  requests: readonly Request[],
  metadata: Readonly<Record<string, string>> = METADATA,
): Promise<Response[]> {
  using channel = new Channel({
    server: addressOf(server.port),
    messageBytesMax: BASE_MESSAGE_BYTES_MAX,
    clock: SYSTEM_CLOCK,
  });
  const call = channel.open(`/${REPOSITORY_SERVICE}/Session`, { ...waiting, metadata });
  for (const [index, request] of requests.entries()) {
    await call.send(encode(SessionRequest, { requestId: index + 1, request }), waiting);
  }
  call.halfClose();
  const responses: Response[] = [];
  for (let message; (message = await call.receive(waiting)) !== undefined;) {
    responses.push(decode(SessionResponse, message));
  }
  return responses.sort((a, b) => a.requestId - b.requestId);
}

const INITIALIZE: Request = { kind: "initializeSession", value: { purpose: "test" } };

Deno.test("a session must be initialized first, and once", async () => {
  await using server = await serve();
  await assert.rejects(talk(server, [{ kind: "flush", value: {} }]), (e) => isKind(e, "protocol"));
  const [, second] = await talk(server, [INITIALIZE, INITIALIZE]);
  assert.equal(second?.response?.kind, "error");
});

Deno.test("metadata that says another user than the certificate is refused", async () => {
  await using server = await serve();
  const cases = [
    {},
    { ...METADATA, "kopia-username": "root" },
    { ...METADATA, "kopia-hostname": "cluster-b" },
  ];
  for (const metadata of cases) {
    await assert.rejects(talk(server, [INITIALIZE], metadata), (e) => isKind(e, "permission"));
  }
});

Deno.test("manifests come in pages, the last one marked", async () => {
  await using server = await serve();
  await using session = await open(server);
  await Promise.all(
    Array.from(
      { length: 2001 },
      (_, i) =>
        session.putManifest({ labels: { ...LABELS, path: `/${i}` }, json: utf8("{}") }, waiting),
    ),
  );
  await session.flush(waiting);
  assert.equal((await session.findManifests(LABELS, waiting)).length, 2001);
  const pages = async (pageSize: number) => {
    const find: Request = { kind: "findManifests", value: { labels: LABELS, pageSize } };
    const [, ...found] = await talk(server, [INITIALIZE, find]);
    return found.map(({ hasMore, response }) => {
      assert.ok(response?.kind === "findManifests");
      return [response.value.metadata.length, hasMore];
    });
  };
  assert.deepEqual(await pages(1000), [[1000, true], [1000, true], [1, false]]);
  assert.deepEqual(await pages(0), [[1000, true], [1000, true], [1, false]]);
  assert.deepEqual(await pages(700), [[700, true], [700, true], [601, false]]);
});

Deno.test("requests that stock clients send besides are answered", async () => {
  await using server = await serve();
  const responses = await talk(server, [
    INITIALIZE,
    { kind: "prefetchContents", value: { contentIds: [ABSENT], hint: "contents" } },
    { kind: "applyRetentionPolicy", value: { sourcePath: "/x", reallyDelete: true } },
    { kind: "sendNotification", value: { templateName: "t" } },
    { kind: "getCapacity", value: {} },
    { kind: "getContent", value: { contentId: ABSENT } },
    { kind: "getManifest", value: { manifestId: ABSENT } },
  ]);
  const [, prefetch, retention, notification, capacity, content, manifest] = responses;
  assert.deepEqual(prefetch?.response, {
    kind: "prefetchContents",
    value: { contentIds: [ABSENT] },
  });
  assert.deepEqual(retention?.response, {
    kind: "applyRetentionPolicy",
    value: { manifestIds: [] },
  });
  assert.equal(notification?.response?.kind, "sendNotification");
  const codes = [capacity, content, manifest].map((answer) =>
    answer?.response?.kind === "error" ? answer.response.value.code : undefined
  );
  const { notAVolume, contentNotFound, manifestNotFound } = ERROR_CODE;
  assert.deepEqual(codes, [notAVolume, contentNotFound, manifestNotFound]);
});

Deno.test("a slow request does not hold up the others", async () => {
  const release = Promise.withResolvers<void>();
  await using server = await serve({
    onOperation: (operation) => operation === "flush" ? release.promise : undefined,
  });
  await using session = await open(server);
  const flushed = session.flush(waiting);
  const content = { prefix: "", data: new Uint8Array(1000), compression: 0 };
  const id = await session.writeContent(content, waiting);
  assert.equal((await session.readContent(id, waiting)).length, 1000);
  release.resolve();
  await flushed;
});

Deno.test("a failure keeps its kind, message and hint on the way to the client", async () => {
  const kinds: readonly FailureKind[] = ["exhausted", "corruption", "repository", "conflict"];
  let next = 0;
  await using server = await serve({
    onOperation: () => {
      const kind = kinds[next++];
      if (kind !== undefined) {
        throw new AppError(kind, `Fail "${kind}": größer`, { hint: "tu was" });
      }
    },
  });
  await using session = await open(server);
  for (const kind of kinds) {
    await assert.rejects(session.readContent(ABSENT, waiting), (error) => {
      assert.ok(error instanceof AppError);
      const { kind: gotKind, message, hint } = error;
      assert.deepEqual([gotKind, message, hint], [kind, `Fail "${kind}": größer`, "tu was"]);
      return true;
    });
  }
  await session.flush(waiting);
});

Deno.test("a server that stops fails what is pending and what comes later", async () => {
  const reached = Promise.withResolvers<void>();
  const repository = new MemoryRepository();
  const hanging = kopiaSessionService(({ user, cluster }) => {
    const real = repository.openSession({ user, host: cluster });
    const flush = (options: Waiting) => {
      reached.resolve();
      return abortable(new Promise<void>(() => {}), options);
    };
    const dispose = () => real[Symbol.asyncDispose]();
    const session: RepositorySession = Object.create(real, {
      flush: { value: flush },
      [Symbol.asyncDispose]: { value: dispose },
    });
    return Promise.resolve(session);
  });
  const server = await startServer([hanging]);
  const session = await open(server);
  const pending = assert.rejects(session.flush(waiting), (e) => isKind(e, "cancelled"));
  await reached.promise;
  await server.close({ timeoutMs: 0 });
  await pending;
  await assert.rejects(session.flush(waiting), (e) => isKind(e, "cancelled"));
  await session[Symbol.asyncDispose]();
});

Deno.test("an abort frees the caller at once, the late answer is dropped", async () => {
  const release = Promise.withResolvers<void>();
  await using server = await serve({
    onOperation: (operation) => operation === "flush" ? release.promise : undefined,
  });
  await using session = await open(server);
  const controller = new AbortController();
  const flushed = session.flush({ signal: controller.signal });
  const reason = new Error("enough");
  controller.abort(reason);
  await assert.rejects(flushed, (error) => error === reason);
  release.resolve();
  assert.equal(await session.contentInfo(ABSENT, waiting), undefined);
  await session.flush(waiting);
});
