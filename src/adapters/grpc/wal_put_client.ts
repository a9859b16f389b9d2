/**
 * Client side of `klio.wal.v1` Put, for servers that do not know `klio.stream.v1`: one call per segment or small file. Such
 * a server confirms a file when it has it to the end, by its size, and nothing before; so positions advance when a segment
 * is confirmed, and at `finish` by what the server then keeps as a partial.
 *
 * @module
 */

import { abortable, type LinkedSignal, linkSignals, type Waiting } from "../../base/abort.ts";
import type { Bytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { PutRequest, PutResult, WAL_SERVICE } from "../../codec/messages/wal.ts";
import { decode } from "../../codec/protobuf/decode.ts";
import { encode } from "../../codec/protobuf/encode.ts";
import { formatLsn, historyName, type Lsn, lsnAdd, segmentName } from "../../domain/lsn.ts";
import type { WalAppendStream, WalServer } from "../../ports/wal_server.ts";
import type { Channel, ClientCall } from "./channel.ts";
import { WAL_BLOCK_BYTES_MAX } from "./options.ts";
import { WalAcknowledgements } from "./wal_acknowledgements.ts";

/** What existing clients send of a small file in one message. */
const SMALL_BLOCK_BYTES = 4096;

/** What every message of a Put repeats. */
interface PutFile {
  readonly cluster: string;
  readonly name: string;
  /** Size of the file when it is whole. */
  readonly sizeBytes: number;
}

/** One Put; what the server says is waited for from the start, so that a failure is known at once. */
class Put {
  readonly file: PutFile;
  /** Bytes that the server has stored. */
  readonly written: Promise<number>;
  readonly #call: ClientCall;
  sentBytes = 0;

  constructor(channel: Channel, file: PutFile, options: Waiting) {
    this.file = file;
    this.#call = channel.open(`/${WAL_SERVICE}/Put`, options);
    this.written = this.#result(options);
    this.written.catch(() => {/* whoever waits for it hears of it */});
  }

  async send(block: Uint8Array, options: Waiting): Promise<void> {
    const { cluster, name, sizeBytes } = this.file;
    const message: Bytes = encode(PutRequest, {
      clusterName: cluster,
      walName: name,
      walBlock: block,
      segmentSize: sizeBytes,
    });
    await this.#call.send(message, options);
    this.sentBytes += block.length;
  }

  /** Throws `repository` unless the server has stored exactly what was sent. */
  async confirm(options: Waiting): Promise<void> {
    this.#call.halfClose();
    const writtenBytes = await abortable(this.written, options);
    if (writtenBytes === this.sentBytes) return;
    throw new AppError(
      "repository",
      `Store WAL file "${this.file.name}": the server has ${writtenBytes} of ${this.sentBytes} bytes`,
    );
  }

  async #result(options: Waiting): Promise<number> {
    try {
      const message = await this.#call.receive(options);
      // The end matters: only then is the status known.
      if (message === undefined || await this.#call.receive(options) !== undefined) {
        throw new AppError("protocol", `Store WAL file "${this.file.name}": wanted one response`);
      }
      return decode(PutResult, message).writtenSize;
    } finally {
      this.#call.cancel();
    }
  }
}

/** Stores a timeline history. */
export async function putHistoryFile(
  channel: Channel,
  request: Parameters<WalServer["putHistory"]>[0],
  options: Waiting,
): Promise<void> {
  const { cluster, timeline, content } = request;
  const file = { cluster, name: historyName(timeline), sizeBytes: content.length };
  using life = linkSignals(options.signal);
  const put = new Put(channel, file, life);
  try {
    for (let offset = 0; offset < content.length; offset += SMALL_BLOCK_BYTES) {
      await put.send(content.subarray(offset, offset + SMALL_BLOCK_BYTES), life);
    }
    await put.send(new Uint8Array(0), life); // the end as existing clients send it
    await put.confirm(life);
  } catch (error) {
    life.abort(error);
    throw error;
  }
}

type AppendRequest = Parameters<WalServer["append"]>[0];

/** See the module comment. Opens its first call with the first byte. */
export class PutAppendStream implements WalAppendStream {
  readonly confirmsSegmentsOnly = true;
  readonly start: Lsn;
  readonly #channel: Channel;
  readonly #request: AppendRequest;
  readonly #life: LinkedSignal = linkSignals();
  readonly #acknowledgements: WalAcknowledgements;
  #put: Put | undefined;
  #end: Lsn;

  constructor(channel: Channel, request: AppendRequest) {
    this.#channel = channel;
    this.#request = request;
    this.start = request.start;
    this.#end = request.start;
    this.#acknowledgements = new WalAcknowledgements(request.start);
  }

  async send(position: Lsn, bytes: Uint8Array, options: Waiting): Promise<void> {
    this.#acknowledgements.throwIfFailed();
    if (position !== this.#end) {
      throw new AppError(
        "protocol",
        `Append WAL at ${formatLsn(position)}: wanted ${formatLsn(this.#end)}`,
      );
    }
    for (let offset = 0; offset < bytes.length;) {
      const put = this.#put ??= this.#open();
      const room = Math.min(put.file.sizeBytes - put.sentBytes, WAL_BLOCK_BYTES_MAX);
      const block = bytes.subarray(offset, offset + room);
      await put.send(block, options);
      offset += block.length;
      this.#end = lsnAdd(this.#end, block.length);
      if (put.sentBytes === put.file.sizeBytes) await this.#confirm(put, options);
    }
  }

  acknowledgements(): AsyncIterable<Lsn> {
    return this.#acknowledgements.positions();
  }

  async finish(options: Waiting): Promise<void> {
    this.#acknowledgements.throwIfFailed();
    if (this.#put !== undefined) await this.#confirm(this.#put, options);
    this.#acknowledgements.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new AppError("cancelled", "The append stream was closed");
    this.#acknowledgements.fail(closed);
    this.#life.abort(closed);
    await this.#put?.written.catch(() => {/* it was cancelled */});
  }

  #open(): Put {
    const { cluster, timeline, segmentSizeBytes: sizeBytes } = this.#request;
    const name = segmentName(timeline, this.#end, sizeBytes);
    const put = new Put(this.#channel, { cluster, name, sizeBytes }, this.#life);
    // A server that is gone must be noticed also while PostgreSQL writes nothing.
    put.written.catch((error: unknown) => this.#acknowledgements.fail(error));
    return put;
  }

  async #confirm(put: Put, options: Waiting): Promise<void> {
    await put.confirm(options);
    this.#put = undefined;
    this.#acknowledgements.advance(this.#end);
  }
}
