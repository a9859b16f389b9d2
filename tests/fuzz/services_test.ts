import assert from "node:assert/strict";
import { abortable, deadline } from "../../src/base/abort.ts";
import { type Bytes, concat } from "../../src/base/bytes.ts";
import { failureKind } from "../../src/base/failure.ts";
import { SessionRequest, SessionResponse } from "../../src/codec/messages/kopia_repository.ts";
import {
  type AppendData,
  AppendRequest,
  PutHistoryRequest,
} from "../../src/codec/messages/stream.ts";
import {
  CloseBackupRequest,
  GetMetadataRequest,
  GetRequest,
  PutRequest,
  RequestWalStartRequest,
  ResetWalStreamRequest,
} from "../../src/codec/messages/wal.ts";
import { decode } from "../../src/codec/protobuf/decode.ts";
import { encode } from "../../src/codec/protobuf/encode.ts";
import { compressUnit } from "../../src/codec/walfile/unit_frame.ts";
import type { MessageInput } from "../../src/codec/protobuf/schema.ts";
import type { Identity } from "../../src/domain/identity.ts";
import type { RpcCall, RpcHandler, RpcService } from "../../src/ports/rpc.ts";
import { kopiaSessionService } from "../../src/rpc/kopia_session.ts";
import { walStreamService } from "../../src/rpc/wal_stream.ts";
import { walService } from "../../src/rpc/wal_v1.ts";
import { RepositoryWorld, WORLD_LABELS, WORLD_OWNER } from "../support/repository_world.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { MIB, openArchive, volume, WHO } from "../support/wal_archive_world.ts";
import { baseSeed, DEEP, seedOf } from "./harness.ts";
import { garbage, mutate } from "./mutate.ts";

const ROUNDS = DEEP ? 10_000 : 400;
/** Calls to one archive or repository before it is replaced by an empty one. */
const CALLS_MAX = 50;
const CALL_TIMEOUT_MS = 10_000;
const U64_MAX = (1n << 64n) - 1n;

/** The usual value, and now and then an odd one. */
function mostly<T>(random: SeededRandom, usual: T, odd: readonly [T, ...T[]]): T {
  return random.integer(0, 7) === 0 ? random.pick(odd) : usual;
}

const oddCluster = (random: SeededRandom) =>
  mostly(random, WHO.cluster, ["other", "", "..", "wal.key"]);
const oddSystem = (random: SeededRandom) =>
  mostly(random, WHO.systemId, ["0", "7", "18446744073709551616", ""]);
const oddSize = (random: SeededRandom) =>
  mostly(random, MIB, [2 * MIB, 1 << 30, 0, 1, MIB + 1, 2 ** 53 - 1]);
const oddTimeline = (random: SeededRandom) => mostly(random, 1, [2, 0, 0xffff_ffff]);

const NAMES = [
  "000000010000000000000005",
  "000000010000000000000006",
  "000000020000000000000007",
  "0000000100000000000FFFFF",
  "00000001FFFFFFFF00000FFF",
  "FFFFFFFFFFFFFFFFFFFFFFFF",
  "000000000000000000000000",
  "000000010000000000000005.partial",
  "00000002.history",
  "000000010000000000000005.00000028.backup",
  "",
  "../000000010000000000000005",
] as const;
const POSITIONS = [
  BigInt(5 * MIB),
  BigInt(5 * MIB),
  BigInt(6 * MIB),
  0n,
  1n,
  U64_MAX,
  U64_MAX - BigInt(MIB) + 1n,
  U64_MAX - BigInt(2 * MIB) + 1n,
] as const;
const LENGTHS = [0, 1, 1000, 300_000, MIB, MIB + 1] as const;

/** A call whose client is `messages`. */
class ScriptedCall implements RpcCall {
  readonly identity: Identity;
  readonly signal: AbortSignal;
  readonly answers: Bytes[] = [];
  readonly #messages: readonly Bytes[];
  #next = 0;

  constructor(identity: Identity, messages: readonly Bytes[], signal: AbortSignal) {
    this.identity = identity;
    this.signal = signal;
    this.#messages = messages;
  }

  metadata(name: string): readonly string[] {
    if (name === "kopia-username") return [this.identity.user];
    return name === "kopia-hostname" ? [this.identity.cluster] : [];
  }

  async receive(): Promise<Bytes | undefined> {
    await Promise.resolve();
    this.signal.throwIfAborted();
    return this.#messages[this.#next++];
  }

  async send(message: Bytes): Promise<void> {
    await Promise.resolve();
    this.answers.push(message);
  }
}

/** Now and then a message is damaged, doubled, lost or replaced. */
function spoil(random: SeededRandom, messages: readonly Bytes[]): Bytes[] {
  return messages.flatMap((message) => {
    switch (random.integer(0, 12)) {
      case 0:
        return [mutate(random, message, random.pick([message, ...messages]))];
      case 1:
        return [message, message];
      case 2:
        return [];
      case 3:
        return [garbage(random)];
      default:
        return [message];
    }
  });
}

function several<T>(random: SeededRandom, make: () => T): T[] {
  return Array.from({ length: random.integer(1, 4) }, make);
}

const WAL_CALLS = {
  Put: (random) => {
    const file = {
      clusterName: oddCluster(random),
      walName: random.pick(NAMES),
      segmentSize: oddSize(random),
    };
    return several(random, () => {
      const walBlock = new Uint8Array(random.pick(LENGTHS));
      const change = random.integer(0, 15) === 0 ? { walName: random.pick(NAMES) } : {};
      return encode(PutRequest, { ...file, ...change, walBlock });
    });
  },
  Get: (random) => [
    encode(GetRequest, { clusterName: oddCluster(random), walName: random.pick(NAMES) }),
  ],
  GetMetadata: (random) => [
    encode(GetMetadataRequest, { clusterName: oddCluster(random) }),
  ],
  RequestWALStart: (random) => [
    encode(RequestWalStartRequest, {
      clusterName: oddCluster(random),
      systemId: oddSystem(random),
      currentWalName: random.pick(NAMES),
    }),
  ],
  ResetWALStream: (random) => [
    encode(ResetWalStreamRequest, {
      clusterName: oddCluster(random),
      systemId: oddSystem(random),
      currentWalName: random.pick(NAMES),
    }),
  ],
  CloseBackup: (random) => [
    encode(CloseBackupRequest, {
      clusterName: oddCluster(random),
      timeline: oddTimeline(random) | 0,
      startWal: random.pick(NAMES),
      endWal: random.pick(NAMES),
      segmentSize: oddSize(random),
    }),
  ],
  Append: (random) => {
    let position = random.pick(POSITIONS);
    const open = {
      clusterName: oddCluster(random),
      systemId: oddSystem(random),
      timeline: oddTimeline(random),
      startLsn: position,
      segmentSize: oddSize(random),
    };
    const data = several(random, () => {
      const bytes = new Uint8Array(random.pick(LENGTHS));
      const value = { lsn: position, ...walOf(random, bytes) };
      position = (position + BigInt(bytes.length)) & U64_MAX;
      if (random.integer(0, 15) === 0) position = random.pick(POSITIONS);
      return encode(AppendRequest, { request: { kind: "data", value } });
    });
    return [encode(AppendRequest, { request: { kind: "open", value: open } }), ...data];
  },
  PutHistory: (random) => [
    encode(PutHistoryRequest, {
      clusterName: oddCluster(random),
      systemId: oddSystem(random),
      timeline: oddTimeline(random),
      content: random.pick([new TextEncoder().encode("1\t0/500000\tx\n"), garbage(random)]),
    }),
  ],
} as const satisfies Record<string, (random: SeededRandom) => Bytes[]>;

/** WAL as it is, or compressed, with what may be wrong about that. */
function walOf(random: SeededRandom, bytes: Bytes): MessageInput<typeof AppendData> {
  if (bytes.length === 0 || bytes.length > MIB || random.integer(0, 1) === 0) {
    return { data: bytes };
  }
  const frame = concat([compressUnit(bytes)]);
  return {
    zstd: random.integer(0, 7) === 0 ? mutate(random, frame, frame) : frame,
    size: mostly(random, bytes.length, [0, 1, bytes.length + 1, MIB + 1, 0xffff_ffff]),
    data: mostly(random, new Uint8Array(), [bytes]),
  };
}

function isWalCall(name: string): name is keyof typeof WAL_CALLS {
  return Object.hasOwn(WAL_CALLS, name);
}

/** Serves one call; the answers, and the kind of its failure. It must end by itself. */
async function serve(
  handler: RpcHandler,
  identity: Identity,
  messages: readonly Bytes[],
): Promise<{ readonly answers: readonly Bytes[]; readonly kind: string; readonly error: unknown }> {
  using limit = deadline({ timeoutMs: CALL_TIMEOUT_MS, what: "Serve a fuzzed call" });
  const call = new ScriptedCall(identity, messages, limit.signal);
  try {
    await abortable(handler(call), limit);
    return { answers: call.answers, kind: "ok", error: undefined };
  } catch (error) {
    return { answers: call.answers, kind: failureKind(error), error };
  }
}

/** What a client may be told about its own mistakes; `bug`, `timeout`, `repository` and `source` would be ours. */
const BLAMES_CLIENT: ReadonlySet<string> = new Set([
  "ok",
  "usage",
  "not_found",
  "conflict",
  "permission",
  "exhausted",
  "protocol",
  // A timeline history that makes no sense, which is refused when it comes and not found out when it is needed.
  "corruption",
]);

function checkBlame(
  found: { readonly kind: string; readonly error: unknown },
  about: { readonly what: string; readonly seed: number; readonly messages: readonly Bytes[] },
): void {
  const storesHistory = about.what === "Put" || about.what === "PutHistory";
  if (BLAMES_CLIENT.has(found.kind) && (found.kind !== "corruption" || storesHistory)) return;
  const inputs = about.messages.map((m) => `${m.length}:${m.subarray(0, 200).toHex()}`);
  const text = `${about.what}, KLIO_TEST_SEED=${about.seed}: ${found.kind}: ${inputs.join(" ")}`;
  throw new Error(text, { cause: found.error });
}

Deno.test("the WAL services blame the client for what is the client's, and always end", async () => {
  const base = baseSeed();
  // deno-lint-ignore no-console
  console.log(`fuzz seed: KLIO_TEST_SEED=${base}`);
  const kinds = new Map<string, number>();
  for (let round = 0; round < ROUNDS; round += 1) {
    const seed = seedOf(base, round);
    const random = new SeededRandom(seed);
    await using archive = await openArchive(await volume());
    const services: readonly RpcService[] = [walService(archive), walStreamService(archive)];
    const methods = Object.entries(
      Object.assign({}, ...services.map((service) => service.methods)) as Record<
        string,
        RpcHandler
      >,
    );
    const [first, ...others] = methods;
    assert.ok(first !== undefined && methods.length === Object.keys(WAL_CALLS).length);
    await archive.requestStart({ ...WHO, proposal: NAMES[0] }, { signal: AbortSignal.any([]) });
    for (let call = random.integer(1, 12); call > 0; call--) {
      const picked: readonly [string, RpcHandler] = random.pick([first, ...others]);
      const [name, handler] = picked;
      assert.ok(isWalCall(name), name);
      const messages = spoil(random, WAL_CALLS[name](random));
      const found = await serve(handler, { user: "klio", cluster: WHO.cluster }, messages);
      kinds.set(found.kind, (kinds.get(found.kind) ?? 0) + 1);
      checkBlame(found, { what: name, seed, messages });
    }
  }
  for (const kind of ["ok", "usage", "permission", "conflict", "protocol", "not_found"]) {
    assert.ok(kinds.has(kind), `no call ended with ${kind}: ${JSON.stringify([...kinds])}`);
  }
});

async function refused(kind: string, method: string, ...messages: readonly Bytes[]): Promise<void> {
  await using archive = await openArchive(await volume());
  const proposal = NAMES[0];
  await archive.requestStart({ ...WHO, proposal }, { signal: AbortSignal.any([]) });
  const methods = { ...walService(archive).methods, ...walStreamService(archive).methods };
  const handler = methods[method] ?? assert.fail(method);
  const identity = { user: "klio", cluster: WHO.cluster };
  const put = { clusterName: WHO.cluster, walName: proposal, segmentSize: MIB };
  const first = encode(PutRequest, { ...put, walBlock: new Uint8Array(MIB) });
  assert.equal((await serve(methods["Put"] ?? assert.fail(), identity, [first])).kind, "ok");
  const found = await serve(handler, identity, messages);
  assert.equal(found.kind, kind, String(found.error));
  // Whatever it was, it did not end the cluster's archive.
  assert.equal(
    await archive.requestStart({ ...WHO, proposal }, { signal: AbortSignal.any([]) }),
    "000000010000000000000006",
  );
}

Deno.test("calls that once went wrong: nothing is stored behind which an archive cannot go on", async () => {
  const cluster = { clusterName: WHO.cluster };
  const segmentSize = MIB;
  const walBlock = new Uint8Array(10);
  const last = { ...cluster, walName: "00000001FFFFFFFF00000FFF", segmentSize, walBlock };
  await refused("usage", "Put", encode(PutRequest, last));
  const none = { ...cluster, walName: "000000010000000000001000", segmentSize, walBlock };
  await refused("usage", "Put", encode(PutRequest, none));
  const who = { ...cluster, systemId: WHO.systemId };
  const reset = encode(ResetWalStreamRequest, { ...who, currentWalName: none.walName });
  await refused("usage", "ResetWALStream", reset);
  const start = U64_MAX - BigInt(MIB) + 1n;
  const open = { ...who, timeline: 1, startLsn: start, segmentSize };
  const data = { lsn: start, data: new Uint8Array(MIB) };
  await refused(
    "protocol",
    "Append",
    encode(AppendRequest, { request: { kind: "open", value: open } }),
    encode(AppendRequest, { request: { kind: "data", value: data } }),
  );
  const history = { ...who, timeline: 2, content: new TextEncoder().encode("2\tx\n") };
  await refused("corruption", "PutHistory", encode(PutHistoryRequest, history));
});

const IDS = [
  "",
  "x",
  "k00112233445566778899aabbccddeeff",
  "00112233445566778899aabbccddeeff",
] as const;
const PREFIXES = ["", "k", "x", "m", "n", "kk", "/", "\u0000"] as const;
const COMPRESSIONS = [0, 0x1101, 0x1100, 0x1234, 0xffff_ffff] as const;
const LABELS = [WORLD_LABELS, {}, { type: "acl" }, { type: "snapshot" }, {
  __proto__: "x",
}] as const;

function sessionRequest(random: SeededRandom, contents: readonly string[]): Bytes {
  const id = random.pick([...IDS, ...contents]);
  const labels = random.pick(LABELS) as Readonly<Record<string, string>>;
  type Request = MessageInput<typeof SessionRequest>["request"];
  const request = random.pick<NonNullable<Request>>([
    { kind: "getContentInfo", value: { contentId: id } },
    { kind: "getContent", value: { contentId: id } },
    {
      kind: "writeContent",
      value: {
        prefix: random.pick(PREFIXES),
        data: new Uint8Array(random.pick(LENGTHS)),
        compression: random.pick(COMPRESSIONS),
      },
    },
    { kind: "getManifest", value: { manifestId: id } },
    {
      kind: "putManifest",
      value: { labels, jsonData: random.pick([new TextEncoder().encode("{}"), garbage(random)]) },
    },
    {
      kind: "findManifests",
      value: { labels, pageSize: random.pick([0, 1, -1, 0x7fff_ffff]) },
    },
    { kind: "deleteManifest", value: { manifestId: id } },
    { kind: "prefetchContents", value: { contentIds: [id, id], hint: "x" } },
    { kind: "applyRetentionPolicy", value: { sourcePath: "/x", reallyDelete: true } },
    { kind: "sendNotification", value: {} },
    { kind: "getCapacity", value: {} },
    { kind: "initializeSession", value: {} },
    { kind: "flush", value: {} },
  ]);
  return encode(SessionRequest, { requestId: random.integer(0, 99), request });
}

Deno.test("the repository service blames the client for what is the client's, and always ends", async () => {
  const base = baseSeed();
  const kinds = new Map<string, number>();
  const identity = { user: WORLD_OWNER.user, cluster: WORLD_OWNER.host };
  for (let round = 0; round < ROUNDS / 3; round += 1) {
    const seed = seedOf(base, round);
    const random = new SeededRandom(seed);
    await using world = await RepositoryWorld.open();
    const { methods } = kopiaSessionService(({ user, cluster, purpose }, options) =>
      world.repository.openSession({ user, host: cluster, purpose }, options)
    );
    const handler = methods["Session"] ?? assert.fail("the service has no Session");
    const contents: string[] = [];
    const opening = encode(SessionRequest, {
      requestId: 1,
      request: { kind: "initializeSession", value: { purpose: "fuzz" } },
    });
    for (let call = random.integer(1, 5); call > 0; call--) {
      const requests = Array.from(
        { length: random.integer(1, CALLS_MAX) },
        () => sessionRequest(random, contents),
      );
      const messages = spoil(random, [opening, ...requests]);
      const found = await serve(handler, identity, messages);
      kinds.set(found.kind, (kinds.get(found.kind) ?? 0) + 1);
      checkBlame(found, { what: "Session", seed, messages });
      for (const answer of found.answers) {
        const { response } = decode(SessionResponse, answer);
        if (response?.kind === "writeContent") contents.push(response.value.contentId);
        if (response?.kind !== "error") continue;
        const kind = response.value.klioKind;
        kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
        // Config: a compression that we do not have. Empty: getCapacity, which stock clients know how to read.
        if (kind === "config" || kind === "") continue;
        checkBlame({ kind, error: response.value.message }, { what: "Session", seed, messages });
      }
    }
  }
  for (const kind of ["ok", "protocol", "not_found", "permission", "config"]) {
    assert.ok(kinds.has(kind), `no request ended with ${kind}: ${JSON.stringify([...kinds])}`);
  }
});
