/**
 * Server side: listens with mutual TLS, hosts {@link RpcService}s and drains on close. Who the client is comes from the
 * common name of its leaf certificate, verified by the TLS layer, and from nothing else; it is looked up for every call.
 *
 * @module
 */

import type { ServerHttp2Session } from "node:http2";
import {
  Metadata,
  Server,
  type ServerDuplexStream,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { abortable, deadline } from "../../base/abort.ts";
import { assert } from "../../base/assert.ts";
import type { Bytes } from "../../base/bytes.ts";
import { AppError, failureKind } from "../../base/failure.ts";
import type { Logger } from "../../base/log.ts";
import { type Identity, parseIdentity } from "../../domain/identity.ts";
import type { RpcCall, RpcHandler, RpcService, RpcStatus } from "../../ports/rpc.ts";
import { deserialize, MessageStream, serialize } from "./message_stream.ts";
import {
  commonOptions,
  FLOW_CONTROL_WINDOW_BYTES,
  formatAddress,
  type Keepalive,
  KEEPALIVE_DEFAULT,
} from "./options.ts";
import { MutualTlsCredentials, type ServerTls } from "./server_credentials.ts";

/** What a server needs. */
export interface GrpcServerOptions {
  /** Address to listen on. */
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly tls: ServerTls;
  readonly services: readonly RpcService[];
  readonly messageBytesMax: number;
  /** The final status of a call that failed. */
  readonly statusOf: (error: unknown) => RpcStatus;
  readonly log: Logger;
  /** Default {@link KEEPALIVE_DEFAULT}. */
  readonly keepalive?: Keepalive;
}

/** What cancelled calls and closing connections get to tell their peers. A peer that does not read gets no more. */
const CLOSE_TIMEOUT_MS = 1000;

/**
 * Deno's HTTP/2 drops answers that are still queued when a connection is closed, and does not tell when they have left;
 * they were seen to leave within 3 ms. A peer that loses one this way retries.
 */
const FLUSH_MS = 30;

type Stream = ServerDuplexStream<Bytes, Bytes>;

/** See the module comment. */
export class GrpcServer implements AsyncDisposable {
  readonly #options: GrpcServerOptions;
  readonly #credentials: MutualTlsCredentials;
  readonly #server: Server;
  readonly #calls = new Map<AbortController, Promise<void>>();
  #port = 0;
  #closing: Promise<void> | undefined;

  private constructor(options: GrpcServerOptions) {
    this.#options = options;
    this.#credentials = new MutualTlsCredentials(options.tls);
    this.#server = new Server(
      commonOptions(options.messageBytesMax, options.keepalive ?? KEEPALIVE_DEFAULT),
    );
    for (const service of options.services) this.#add(service);
  }

  /** Starts listening. Throws `config` for unusable TLS material or an address that cannot be bound. */
  static async listen(options: GrpcServerOptions): Promise<GrpcServer> {
    const server = new GrpcServer(options);
    const address = formatAddress(options.host, options.port);
    server.#port = await new Promise<number>((resolve, reject) => {
      server.#server.bindAsync(address, server.#credentials, (cause, port) => {
        if (cause === null) return resolve(port);
        reject(new AppError("config", `Listen on "${address}"`, { cause }));
      });
    });
    widenConnections(server.#server);
    return server;
  }

  /** The port listened on. */
  get port(): number {
    return this.#port;
  }

  /** Calls being served. */
  get calls(): number {
    return this.#calls.size;
  }

  /** Uses other certificates for new connections. Throws `config` and changes nothing when they are unusable. */
  reloadTls(tls: ServerTls): void {
    this.#credentials.reload(tls);
  }

  /** Accepts nothing new, lets running calls finish for up to `timeoutMs`, then cancels them. Idempotent; never throws. */
  close(options: { readonly timeoutMs: number }): Promise<void> {
    this.#closing ??= this.#drain(options.timeoutMs);
    return this.#closing;
  }

  /** Closes without grace. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close({ timeoutMs: 0 });
  }

  async #drain(timeoutMs: number): Promise<void> {
    // Calls first, connections later: under Deno the library's graceful shutdown drops connections with running calls.
    // Meanwhile new calls are refused, see #serve.
    if (!await endsWithin(timeoutMs, this.#allCalls())) {
      this.#options.log.warn("Cancelling calls that did not finish in time", {
        calls: this.#calls.size,
      });
      const reason = new AppError("cancelled", "The server is stopping");
      for (const controller of this.#calls.keys()) controller.abort(reason);
      await endsWithin(CLOSE_TIMEOUT_MS, this.#allCalls());
    }
    await endsWithin(FLUSH_MS, new Promise<void>(() => {}));
    const closed = new Promise<void>((resolve) => this.#server.tryShutdown(() => resolve()));
    await endsWithin(CLOSE_TIMEOUT_MS, closed);
    this.#server.forceShutdown();
    await this.#allCalls();
  }

  async #allCalls(): Promise<void> {
    while (this.#calls.size > 0) await Promise.all(this.#calls.values());
  }

  #add(service: RpcService): void {
    const definition: Record<string, ServiceDefinition[string]> = {};
    const implementation: UntypedServiceImplementation = {};
    for (const [name, handler] of Object.entries(service.methods)) {
      definition[name] = {
        path: `/${service.name}/${name}`,
        requestStream: true,
        responseStream: true,
        requestSerialize: serialize,
        requestDeserialize: deserialize,
        responseSerialize: serialize,
        responseDeserialize: deserialize,
      };
      implementation[name] = (stream: Stream) => this.#start(stream, handler);
    }
    this.#server.addService(definition, implementation);
  }

  #start(stream: Stream, handler: RpcHandler): void {
    const controller = new AbortController();
    const served = this.#serve(stream, handler, controller);
    this.#calls.set(controller, served);
    void served.then(() => this.#calls.delete(controller)); // #serve never rejects
  }

  async #serve(stream: Stream, handler: RpcHandler, controller: AbortController): Promise<void> {
    const messages = new MessageStream(stream);
    const closed = new Promise<void>((resolve) => stream.once("close", resolve));
    // The library says so too when it has sent the status of a call that ended well.
    stream.on("cancelled", () => {
      const gone = new AppError("cancelled", `The client cancelled ${stream.getPath()}`);
      messages.fail(gone);
      controller.abort(gone);
    });
    try {
      if (this.#closing !== undefined) throw new AppError("repository", "The server is stopping");
      await handler(servedCall(stream, messages, controller.signal));
      stream.end();
    } catch (error) {
      this.#logFailure(stream, error);
      if (!stream.cancelled) stream.emit("error", this.#errorOf(error));
    }
    await closed;
  }

  #errorOf(error: unknown): { code: number; details: string; metadata: Metadata } {
    const status = this.#options.statusOf(error);
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(status.trailers)) metadata.set(name, value);
    return { code: status.code, details: status.message, metadata };
  }

  #logFailure(stream: Stream, error: unknown): void {
    const fields = { method: stream.getPath(), peer: stream.getPeer() };
    const kind = failureKind(error);
    if (kind === "bug") this.#options.log.error("Call failed", fields, error);
    else if (kind === "cancelled" || kind === "not_found") {
      this.#options.log.debug("Call ended early", { ...fields, kind });
    } else this.#options.log.warn("Call failed", { ...fields, kind }, error);
  }
}

/**
 * A window of HTTP/2 exists twice, per stream and per connection, and the library leaves a server's connections at 64 KiB:
 * a client that sends would wait for us four times per message. Its list of HTTP/2 servers is the only way to them.
 */
function widenConnections(server: Server): void {
  const http2Servers: unknown = Reflect.get(server, "http2Servers");
  assert(
    http2Servers instanceof Map && http2Servers.size > 0,
    "the gRPC library keeps its servers",
  );
  for (const http2Server of http2Servers.keys()) {
    http2Server.on("session", (session: ServerHttp2Session) => {
      session.setLocalWindowSize(FLOW_CONTROL_WINDOW_BYTES);
    });
  }
}

/** False when the time is over first. */
async function endsWithin(timeoutMs: number, end: Promise<void>): Promise<boolean> {
  using limit = deadline({ timeoutMs, what: "Close server" });
  try {
    await abortable(end, limit);
    return true;
  } catch {
    return false; // the only failure is the deadline
  }
}

function servedCall(stream: Stream, messages: MessageStream, signal: AbortSignal): RpcCall {
  const identity = identityOf(stream);
  const waiting = { signal };
  return {
    identity,
    signal,
    metadata: (name) =>
      stream.metadata.get(name).map((value) =>
        typeof value === "string" ? value : value.toString()
      ),
    receive: () => messages.receive(waiting),
    send: (message) => messages.send(message, waiting),
  };
}

/** Throws `permission`. */
function identityOf(stream: Stream): Identity {
  const commonName = stream.getAuthContext().sslPeerCertificate?.subject.CN;
  if (typeof commonName !== "string") {
    throw new AppError(
      "permission",
      "Identify client: wanted a client certificate with exactly one common name",
    );
  }
  return parseIdentity(commonName);
}
