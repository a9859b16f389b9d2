/**
 * Client side of `klio.stream.v1` Append. Acknowledgements are taken off the wire as they come, whether anybody listens or
 * not, and only the latest is kept: positions never go back, so it says all that the earlier ones said.
 *
 * @module
 */

import { abortable, type LinkedSignal, linkSignals, type Waiting } from "../../base/abort.ts";
import { AppError } from "../../base/failure.ts";
import { AppendRequest, AppendResponse, STREAM_SERVICE } from "../../codec/messages/stream.ts";
import { decode } from "../../codec/protobuf/decode.ts";
import { encode } from "../../codec/protobuf/encode.ts";
import type { MessageValue } from "../../codec/protobuf/schema.ts";
import { type Lsn, lsn, lsnAdd } from "../../domain/lsn.ts";
import type { WalAppendStream, WalServer } from "../../ports/wal_server.ts";
import type { Channel, ClientCall } from "./channel.ts";
import { WAL_BLOCK_BYTES_MAX } from "./options.ts";

/** Opens a stream; resolves when the server said where to start. */
export async function openAppendStream(
  channel: Channel,
  request: Parameters<WalServer["append"]>[0],
  options: Waiting,
): Promise<WalAppendStream> {
  // The signal of opening must not end the stream later.
  const life = linkSignals();
  const call = channel.open(`/${STREAM_SERVICE}/Append`, { signal: life.signal });
  try {
    const open = {
      clusterName: request.cluster,
      systemId: request.systemId,
      timeline: request.timeline,
      startLsn: request.start,
      segmentSize: request.segmentSizeBytes,
    };
    await call.send(encode(AppendRequest, { request: { kind: "open", value: open } }), options);
    const response = await receiveResponse(call, options);
    if (response?.kind !== "opened") {
      throw new AppError("protocol", "Append WAL: the server did not confirm the stream");
    }
    return new NetworkAppendStream(call, life, lsn(response.value.startLsn));
  } catch (error) {
    life.abort(error);
    throw error;
  }
}

type Response = NonNullable<MessageValue<typeof AppendResponse>["response"]>;

async function receiveResponse(call: ClientCall, options: Waiting): Promise<Response | undefined> {
  const message = await call.receive(options);
  if (message === undefined) return undefined;
  const { response } = decode(AppendResponse, message);
  if (response === undefined) {
    throw new AppError("protocol", "Append WAL: unknown kind of response");
  }
  return response;
}

class NetworkAppendStream implements WalAppendStream {
  readonly start: Lsn;
  readonly #call: ClientCall;
  readonly #life: LinkedSignal;
  /** Settles when the stream has ended; never rejects. */
  readonly #ended: Promise<void>;
  #durable: Lsn;
  #isEnded = false;
  #isFinishing = false;
  #failure: { readonly error: unknown } | undefined;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();

  constructor(call: ClientCall, life: LinkedSignal, start: Lsn) {
    this.start = start;
    this.#durable = start;
    this.#call = call;
    this.#life = life;
    this.#ended = this.#receiveAll();
  }

  async send(position: Lsn, bytes: Uint8Array, options: Waiting): Promise<void> {
    for (let offset = 0; offset < bytes.length; offset += WAL_BLOCK_BYTES_MAX) {
      this.#throwIfFailed();
      const value = {
        lsn: lsnAdd(position, offset),
        data: bytes.subarray(offset, offset + WAL_BLOCK_BYTES_MAX),
      };
      await this.#call.send(encode(AppendRequest, { request: { kind: "data", value } }), options);
    }
  }

  async *acknowledgements(): AsyncGenerator<Lsn> {
    let told = this.start;
    for (;;) {
      if (this.#durable > told) {
        told = this.#durable;
        yield told;
        continue; // it may have moved meanwhile
      }
      this.#throwIfFailed();
      if (this.#isEnded) return;
      await this.#changed.promise;
    }
  }

  async finish(options: Waiting): Promise<void> {
    this.#throwIfFailed();
    this.#isFinishing = true;
    this.#call.halfClose();
    await abortable(this.#ended, options);
    this.#throwIfFailed();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#life.abort(new AppError("cancelled", "The append stream was closed"));
    await this.#ended;
  }

  async #receiveAll(): Promise<void> {
    try {
      for (;;) {
        const response = await receiveResponse(this.#call, this.#life);
        if (response === undefined) break;
        if (response.kind !== "durable") {
          throw new AppError("protocol", "Append WAL: the server confirmed the stream twice");
        }
        const durable = lsn(response.value.durableLsn);
        if (durable < this.#durable) {
          throw new AppError("protocol", "Append WAL: the durable position went back");
        }
        this.#durable = durable;
        this.#wake();
      }
      if (!this.#isFinishing) {
        throw new AppError("repository", "Append WAL: the server ended the stream");
      }
    } catch (error) {
      this.#failure = { error };
      this.#call.cancel();
    }
    this.#isEnded = true;
    this.#wake();
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #wake(): void {
    const changed = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    changed.resolve();
  }
}
