/**
 * The network between streamers and a server, simulated between the real client of `klio.stream.v1` and the real handler
 * of its Append: messages travel late, in order, whole, through windows of bounded bytes; a connection may be reset, or
 * fall silent so that each end notices at its own time (keepalive). Everything else is a call that travels the same way.
 *
 * @module
 */

import { abortable, linkSignals, type Waiting } from "../../src/base/abort.ts";
import { ByteQueue } from "../../src/base/byte_queue.ts";
import type { Bytes } from "../../src/base/bytes.ts";
import type { Clock } from "../../src/base/clock.ts";
import { AppError, describeError, failureKind } from "../../src/base/failure.ts";
import type { ClientCall } from "../../src/adapters/grpc/channel.ts";
import { openAppendStream } from "../../src/adapters/grpc/wal_append_client.ts";
import { AppendRequest, AppendResponse } from "../../src/codec/messages/stream.ts";
import { decode } from "../../src/codec/protobuf/decode.ts";
import { encode } from "../../src/codec/protobuf/encode.ts";
import { type Lsn, lsn, lsnAdd, type TimelineId, timelineId } from "../../src/domain/lsn.ts";
import type { RpcCall } from "../../src/ports/rpc.ts";
import type { WalArchivePort } from "../../src/ports/wal_archive.ts";
import type { WalServer } from "../../src/ports/wal_server.ts";
import { walStreamService } from "../../src/rpc/wal_stream.ts";
import type { SeededRandom } from "./seeded_random.ts";

/** When a silent connection is given up, by either side: keepalive time and timeout. */
const SILENCE_MS = { min: 20_000, max: 30_000 };

/** How a connection ends. */
export type Cut = "reset" | "silence";

/** What a {@link SimNetwork} needs. */
export interface SimNetworkOptions {
  readonly clock: Clock;
  readonly random: SeededRandom;
  readonly identity: RpcCall["identity"];
  /** Longest time of a message on its way. */
  readonly latencyMsMax: number;
  /** Bytes on their way, per direction of a call. */
  readonly windowBytes: number;
  /** Ends the world. */
  readonly signal: AbortSignal;
  /** Undefined while nobody listens. */
  readonly archive: () => WalArchivePort | undefined;
  /** The server said this, whether or not anybody hears it. */
  readonly onDurable: (stream: { timeline: TimelineId; start: Lsn }, position: Lsn) => void;
  readonly onHistory: (timeline: TimelineId) => void;
  /** A handler failed with something that is a bug. */
  readonly onBug: (error: unknown) => void;
  /** Test of the tests: WAL is acknowledged when it has arrived. */
  readonly acknowledgesArrival: boolean;
}

/** A network client of one process. */
export interface SimClient extends WalServer {
  /** The process or its machine dies. */
  sever(cut: Cut): void;
}

/** One call, from both sides. */
class Line {
  readonly client = new AbortController();
  readonly server = new AbortController();
  isSilent = false;
}

/** See the module comment. */
export class SimNetwork {
  readonly #options: SimNetworkOptions;
  readonly #lines = new Set<Line>();
  isPartitioned = false;

  constructor(options: SimNetworkOptions) {
    this.#options = options;
  }

  /** All connections end. */
  cutAll(cut: Cut): void {
    for (const line of this.#lines) this.#cut(line, cut);
  }

  /** The server's process is gone, and perhaps its machine. */
  serverDied(cut: Cut): void {
    for (const line of this.#lines) {
      line.server.abort(LOST);
      this.#cut(line, cut);
    }
  }

  #cut(line: Line, cut: Cut): void {
    const { random, latencyMsMax } = this.#options;
    const silence = () => random.integer(SILENCE_MS.min, SILENCE_MS.max);
    const delay = () => cut === "silence" ? silence() : random.integer(0, latencyMsMax);
    line.isSilent ||= cut === "silence";
    this.#after(delay(), () => line.client.abort(LOST));
    this.#after(delay(), () => line.server.abort(LOST));
  }

  #after(ms: number, action: () => void): void {
    const { clock, signal } = this.#options;
    void clock.sleep(ms, { signal }).then(action, () => {/* the world ended */});
  }

  /** A message's way; never ends on a silent line. */
  async #travel(line: Line): Promise<void> {
    const { clock, random, latencyMsMax, signal } = this.#options;
    await clock.sleep(random.integer(0, latencyMsMax), { signal });
    if (line.isSilent) await abortable(new Promise<never>(() => {}), { signal });
  }

  /** The client of a process. */
  client(): SimClient {
    const lines = new Set<Line>();
    const unary = <T>(
      action: (archive: WalArchivePort, options: Waiting) => Promise<T>,
      options: Waiting,
    ) => this.#unary(lines, action, options);
    return {
      sever: (cut) => {
        for (const line of lines) {
          line.client.abort(LOST);
          this.#cut(line, cut);
        }
      },
      append: (request, options) =>
        openAppendStream({ open: (_, { signal }) => this.#open(lines, signal) }, request, options),
      requestStart: (request, options) =>
        unary((archive, waiting) => archive.requestStart(request, waiting), options),
      resetStream: (request, options) =>
        unary((archive, waiting) => archive.resetStream(request, waiting), options),
      putHistory: (request, options) =>
        unary(async (archive, waiting) => {
          await archive.putHistory(request, waiting);
          if (!waiting.signal.aborted) this.#options.onHistory(request.timeline);
        }, options),
      metadata: (cluster, options) =>
        unary((archive, waiting) => archive.metadata(cluster, waiting), options),
      get: (request, options) =>
        unary((archive, waiting) => archive.get(request, waiting), options),
      closeBackup: (range, options) =>
        unary((archive, waiting) => archive.closeBackup(range, waiting), options),
    };
  }

  #line(lines: Set<Line>): Line {
    const line = new Line();
    lines.add(line);
    this.#lines.add(line);
    return line;
  }

  #end(lines: Set<Line>, line: Line): void {
    lines.delete(line);
    this.#lines.delete(line);
  }

  #listening(): WalArchivePort {
    const archive = this.isPartitioned ? undefined : this.#options.archive();
    if (archive === undefined) throw new AppError("repository", "Connect to the server: refused");
    return archive;
  }

  async #unary<T>(
    lines: Set<Line>,
    action: (archive: WalArchivePort, options: Waiting) => Promise<T>,
    options: Waiting,
  ): Promise<T> {
    const line = this.#line(lines);
    using life = linkSignals(options.signal, line.client.signal);
    const served = async () => {
      await this.#travel(line);
      let outcome: { value: T } | { error: unknown };
      try {
        outcome = { value: await action(this.#listening(), line.server) };
      } catch (error) {
        outcome = { error: this.#status(line, error) };
      }
      await this.#travel(line);
      if ("error" in outcome) throw outcome.error;
      return outcome.value;
    };
    try {
      return await abortable(served(), life);
    } finally {
      this.#end(lines, line);
    }
  }

  /** What a client hears of a failure. */
  #status(line: Line, error: unknown): AppError {
    const kind = failureKind(error);
    if (kind === "bug" && !line.server.signal.aborted) this.#options.onBug(error);
    return new AppError(kind, describeError(error));
  }

  #open(lines: Set<Line>, signal: AbortSignal): ClientCall {
    const line = this.#line(lines);
    const toServer = this.#lane(line);
    const toClient = this.#lane(line);
    onAbort(signal, () => line.client.abort(signal.reason));
    onAbort(line.client.signal, () => {
      const { reason } = line.client.signal;
      toServer.sent.fail(reason);
      toClient.arrived.fail(reason);
      // The server hears of it, if anything still comes through.
      void this.#travel(line).then(() => line.server.abort(LOST), () => {});
    });
    onAbort(line.server.signal, () => {
      toServer.arrived.fail(LOST);
      toClient.sent.fail(LOST);
    });
    void this.#serve(line, toServer, toClient).finally(() => this.#end(lines, line));
    return {
      send: (message, options) => toServer.sent.push(message, options),
      halfClose: () => toServer.sent.close(),
      receive: (options) => toClient.arrived.take(options),
      cancel: () => line.client.abort(new AppError("cancelled", "The call was cancelled")),
    };
  }

  #lane(line: Line): Lane {
    const limits = { bytesMax: this.#options.windowBytes, itemsMax: 1024 };
    const lane: Lane = {
      sent: new ByteQueue(limits, (message) => message.length),
      arrived: new ByteQueue(limits, (message) => message.length),
    };
    void this.#carry(line, lane).catch(
      () => {/* an end of the lane has failed, or the world ended */},
    );
    return lane;
  }

  async #carry(line: Line, { sent, arrived }: Lane): Promise<void> {
    const { signal } = this.#options;
    for (;;) {
      const messages = await sent.takeAll({ signal });
      await this.#travel(line);
      if (messages === undefined) return arrived.close();
      for (const message of messages) await arrived.push(message, { signal });
    }
  }

  async #serve(line: Line, toServer: Lane, toClient: Lane): Promise<void> {
    try {
      await this.#travel(line);
      await walStreamService(this.#listening()).methods["Append"]?.(
        this.#rpcCall(line, toServer, toClient),
      );
      toClient.sent.close();
    } catch (error) {
      if (this.#options.signal.aborted) return;
      const status = this.#status(line, error);
      if (line.server.signal.aborted) return;
      toServer.arrived.fail(status);
      await this.#travel(line).then(() => line.client.abort(status), () => {});
    }
  }

  #rpcCall(line: Line, toServer: Lane, toClient: Lane): RpcCall {
    const { identity, onDurable, acknowledgesArrival } = this.#options;
    const { signal } = line.server;
    let stream: { timeline: TimelineId; start: Lsn } | undefined;
    const send = async (message: Bytes) => {
      signal.throwIfAborted();
      const { response } = decode(AppendResponse, message);
      if (response?.kind === "durable" && stream !== undefined) {
        onDurable(stream, lsn(response.value.durableLsn));
      }
      await toClient.sent.push(message, { signal });
    };
    return {
      identity,
      signal,
      metadata: () => [],
      receive: async () => {
        const message = await toServer.arrived.take({ signal });
        const request = message === undefined ? undefined : decode(AppendRequest, message).request;
        if (request?.kind === "open") {
          const { timeline, startLsn } = request.value;
          stream = { timeline: timelineId(timeline), start: lsn(startLsn) };
        } else if (acknowledgesArrival && request?.kind === "data") {
          const end = lsnAdd(
            lsn(request.value.lsn),
            request.value.data.length || request.value.size,
          );
          await send(
            encode(AppendResponse, { response: { kind: "durable", value: { durableLsn: end } } }),
          );
        }
        return message;
      },
      send: async (message) => {
        const isDurable = decode(AppendResponse, message).response?.kind === "durable";
        if (!(acknowledgesArrival && isDurable)) await send(message);
      },
    };
  }
}

interface Lane {
  readonly sent: ByteQueue<Bytes>;
  readonly arrived: ByteQueue<Bytes>;
}

const LOST = new AppError("repository", "The connection was lost");

function onAbort(signal: AbortSignal, action: () => void): void {
  if (signal.aborted) action();
  else signal.addEventListener("abort", action, { once: true });
}
