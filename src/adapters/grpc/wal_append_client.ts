/**
 * Client side of `klio.stream.v1` Append. Acknowledgements are taken off the wire as they come, whether anybody listens or
 * not.
 *
 * @module
 */

import { abortable, type LinkedSignal, linkSignals, type Waiting } from "../../base/abort.ts";
import { AppError } from "../../base/failure.ts";
import { AppendRequest, AppendResponse, STREAM_SERVICE } from "../../codec/messages/stream.ts";
import { decode } from "../../codec/protobuf/decode.ts";
import { encode } from "../../codec/protobuf/encode.ts";
import type { MessageValue } from "../../codec/protobuf/schema.ts";
import { UNIT_WAL_BYTES_MAX } from "../../codec/walfile/format.ts";
import { compressUnit } from "../../codec/walfile/unit_frame.ts";
import { type Lsn, lsn, lsnAdd, segmentOffset } from "../../domain/lsn.ts";
import type { WalAppendStream, WalServer } from "../../ports/wal_server.ts";
import type { Channel, ClientCall } from "./channel.ts";
import { WalAcknowledgements } from "./wal_acknowledgements.ts";

/** Smaller pieces go as they are: the server joins them with their neighbours, and they shrink better together. */
const COMPRESSED_BYTES_MIN = 8 << 10;

/** Opens a stream; resolves when the server said where to start. */
export async function openAppendStream(
  channel: Pick<Channel, "open">,
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
    const start = lsn(response.value.startLsn);
    return new NetworkAppendStream(call, life, start, request.segmentSizeBytes);
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
  readonly #segmentSizeBytes: number;
  readonly #call: ClientCall;
  readonly #life: LinkedSignal;
  /** Settles when the stream has ended; never rejects. */
  readonly #ended: Promise<void>;
  readonly #acknowledgements: WalAcknowledgements;
  #isFinishing = false;

  constructor(call: ClientCall, life: LinkedSignal, start: Lsn, segmentSizeBytes: number) {
    this.start = start;
    this.#segmentSizeBytes = segmentSizeBytes;
    this.#acknowledgements = new WalAcknowledgements(start);
    this.#call = call;
    this.#life = life;
    this.#ended = this.#receiveAll();
  }

  async send(position: Lsn, bytes: Uint8Array, options: Waiting): Promise<void> {
    for (let offset = 0; offset < bytes.length;) {
      this.#acknowledgements.throwIfFailed();
      const at = lsnAdd(position, offset);
      const room = this.#segmentSizeBytes - segmentOffset(at, this.#segmentSizeBytes);
      const part = bytes.subarray(offset, offset + Math.min(room, UNIT_WAL_BYTES_MAX));
      const wal = part.length < COMPRESSED_BYTES_MIN
        ? { data: part }
        : { zstd: compressUnit(part), size: part.length };
      const value = { lsn: at, ...wal };
      await this.#call.send(encode(AppendRequest, { request: { kind: "data", value } }), options);
      offset += part.length;
    }
  }

  acknowledgements(): AsyncIterable<Lsn> {
    return this.#acknowledgements.positions();
  }

  async finish(options: Waiting): Promise<void> {
    this.#acknowledgements.throwIfFailed();
    this.#isFinishing = true;
    this.#call.halfClose();
    await abortable(this.#ended, options);
    this.#acknowledgements.throwIfFailed();
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
        this.#acknowledgements.advance(lsn(response.value.durableLsn));
      }
      if (!this.#isFinishing) {
        throw new AppError("repository", "Append WAL: the server ended the stream");
      }
    } catch (error) {
      this.#acknowledgements.fail(error);
      this.#call.cancel();
    }
    this.#acknowledgements.end();
  }
}
