/**
 * Client side of a connection to a klio server: one channel, its calls. Failures come out as {@link AppError} only. Nothing
 * is retried here; a call after a failure connects anew.
 *
 * @module
 */

import { Client, Metadata } from "@grpc/grpc-js";
import type { Waiting } from "../../base/abort.ts";
import type { Bytes } from "../../base/bytes.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/failure.ts";
import { ClientCredentials, type ClientTls } from "./client_credentials.ts";
import { type CallFailure, translateCallFailure, UNAVAILABLE } from "./errors.ts";
import { deserialize, MessageStream, serialize } from "./message_stream.ts";
import { commonOptions, formatAddress, type Keepalive, KEEPALIVE_DEFAULT } from "./options.ts";

/** A klio server and how to prove who we are. */
export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  readonly tls: ClientTls;
}

/** What a channel needs besides the address. */
export interface ChannelOptions {
  readonly server: ServerAddress;
  readonly messageBytesMax: number;
  readonly clock: Clock;
  /** Default {@link KEEPALIVE_DEFAULT}. */
  readonly keepalive?: Keepalive;
}

/** One call; any number of messages each way. Cancelled when the signal it was opened with aborts. */
export interface ClientCall {
  /** Waits while the server is slower than we are; `message` belongs to the call from here on. */
  send(message: Bytes, options: Waiting): Promise<void>;
  /** No more messages from us. */
  halfClose(): void;
  /** The next message, owned; undefined when the call ended well. */
  receive(options: Waiting): Promise<Bytes | undefined>;
  /** Ends the call now; harmless when it has ended. */
  cancel(): void;
}

/** See the module comment. */
export class Channel implements Disposable {
  readonly address: string;
  readonly #credentials: ClientCredentials;
  readonly #messageBytesMax: number;
  readonly #keepalive: Keepalive;
  readonly #calls = new Set<ClientCall>();
  #hasCutCalls = false;
  /** Absent until first used, and after a failure to connect. */
  #client: Client | undefined;

  /** Does not connect yet. Throws `config` or `permission` for unusable TLS material. */
  constructor(options: ChannelOptions) {
    const { host, port, tls } = options.server;
    this.address = formatAddress(host, port);
    this.#credentials = new ClientCredentials({ host, tls, clock: options.clock });
    this.#messageBytesMax = options.messageBytesMax;
    this.#keepalive = options.keepalive ?? KEEPALIVE_DEFAULT;
  }

  /** Opens a call; failures show when it is used. */
  open(
    method: string,
    options: Waiting & { readonly metadata?: Readonly<Record<string, string>> },
  ): ClientCall {
    const { signal } = options;
    signal.throwIfAborted();
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(options.metadata ?? {})) metadata.set(name, value);
    this.#client ??= this.#connect();
    const stream = this.#client.makeBidiStreamRequest<Bytes, Bytes>(
      method,
      serialize,
      deserialize,
      metadata,
    );
    const messages = new MessageStream(stream);
    const call: ClientCall = {
      send: (message, waiting) => messages.send(message, waiting),
      halfClose: () => stream.end(),
      receive: (waiting) => messages.receive(waiting),
      cancel: () => this.#cut(call, stream),
    };
    const onAbort = () => {
      messages.fail(signal.reason);
      this.#cut(call, stream);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    this.#calls.add(call);
    stream.on("status", () => {
      signal.removeEventListener("abort", onAbort);
      this.#calls.delete(call);
      if (this.#hasCutCalls && this.#calls.size === 0) this.#drop();
    });
    stream.on("error", (failure: Error & CallFailure) => {
      messages.fail(this.#translate(failure, method));
      if (failure.code === UNAVAILABLE) this.#disconnect();
    });
    return call;
  }

  /** One message each way. */
  async unary(method: string, request: Bytes, options: Waiting): Promise<Bytes> {
    const call = this.open(method, options);
    try {
      await call.send(request, options);
      call.halfClose();
      const response = await call.receive(options);
      // The end matters: only then is the status known.
      if (response === undefined || await call.receive(options) !== undefined) {
        throw new AppError("protocol", `Call ${method} of "${this.address}": wanted one response`);
      }
      return response;
    } finally {
      call.cancel();
    }
  }

  /** Ends the calls that still run with `cancelled`. */
  [Symbol.dispose](): void {
    for (const call of this.#calls) call.cancel();
    this.#drop();
  }

  /**
   * Ends a call before its end. Its connection is given up as soon as no other call needs it: Deno 2.9.6 can crash when a
   * server closes a connection on which its peer had cancelled a response midway (`wal_network_test` does that).
   */
  #cut(call: ClientCall, stream: { cancel(): void }): void {
    if (!this.#calls.has(call)) return;
    this.#hasCutCalls = true;
    stream.cancel();
  }

  /** Closes all connections now; the next call connects anew. */
  #drop(): void {
    this.#hasCutCalls = false;
    this.#disconnect();
    this.#credentials.destroyConnections();
  }

  #connect(): Client {
    return new Client(this.address, this.#credentials, {
      ...commonOptions(this.#messageBytesMax, this.#keepalive),
      "grpc.keepalive_permit_without_calls": 1,
      // A proxy of the environment is for the web, not for backups.
      "grpc.enable_http_proxy": 0,
      // Retrying and its pace are the caller's: a client that could not connect is given up at once, see #disconnect. Its
      // own back-off would keep a server that is back from being tried, and would leave a timer behind.
      "grpc.enable_retries": 0,
      "grpc.initial_reconnect_backoff_ms": 1,
      "grpc.max_reconnect_backoff_ms": 1,
      "grpc.service_config_disable_resolution": 1,
      "grpc.use_local_subchannel_pool": 1,
    });
  }

  /** The next call connects anew. Calls that run on the old connection go on. */
  #disconnect(): void {
    this.#client?.close();
    this.#client = undefined;
  }

  #translate(failure: CallFailure, method: string): AppError {
    const handshakeFailure = this.#credentials.failure;
    return translateCallFailure(failure, { address: this.address, method, handshakeFailure });
  }
}
