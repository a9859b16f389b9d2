/**
 * The server's end of an append stream: a queue bounded by bytes and one task that drains it. Each round takes everything
 * queued, writes it, syncs once and then acknowledges (group commit): the busier the disk, the more bytes share a sync.
 * Nothing is acknowledged before the sync and the directory sync that make it durable have returned.
 *
 * @module
 */

import { abortable, type LinkedSignal, linkSignals, type Waiting } from "../../base/abort.ts";
import { assert } from "../../base/assert.ts";
import { ByteQueue } from "../../base/byte_queue.ts";
import { AppError } from "../../base/failure.ts";
import {
  formatLsn,
  type Lsn,
  lsnAdd,
  segmentName,
  segmentOffset,
  segmentStart,
  type TimelineId,
} from "../../domain/lsn.ts";
import type { WalAppendStream } from "../../ports/wal_server.ts";
import type { SegmentWriter } from "./segment_writer.ts";

const QUEUE_LIMITS = { bytesMax: 8 << 20, itemsMax: 4096 };

/** What a stream needs from the archive. */
export interface AppendStreamOptions {
  readonly timeline: TimelineId;
  /** A segment start. */
  readonly start: Lsn;
  readonly segmentSizeBytes: number;
  /** Opens the writer of the segment with this name. */
  openSegment(name: string): Promise<SegmentWriter>;
  /** Runs before the first bytes of the stream become durable. */
  beforeFirstCommit(): Promise<void>;
  /** Hears of every durable position, before the client does. */
  onDurable(position: Lsn): void;
  /** Runs when the stream has let go of everything. */
  onEnd(): void;
}

interface WalChunk {
  readonly position: Lsn;
  readonly bytes: Uint8Array;
}

/** See the module comment. */
export class AppendStream implements WalAppendStream {
  readonly start: Lsn;
  readonly #options: AppendStreamOptions;
  readonly #queue = new ByteQueue<WalChunk>(QUEUE_LIMITS, (chunk) => chunk.bytes.length);
  readonly #stop: LinkedSignal;
  readonly #done: Promise<void>;
  #segment: SegmentWriter | undefined;
  #segmentStart: Lsn;
  #expected: Lsn;
  #written: Lsn;
  #durable: Lsn;
  #committedOnce = false;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;
  #changed = Promise.withResolvers<void>();

  constructor(options: AppendStreamOptions) {
    this.#options = options;
    this.start = options.start;
    this.#segmentStart = options.start;
    this.#expected = options.start;
    this.#written = options.start;
    this.#durable = options.start;
    this.#stop = linkSignals();
    this.#done = this.#run();
  }

  async send(position: Lsn, bytes: Uint8Array, options: Waiting): Promise<void> {
    if (position !== this.#expected) {
      throw new AppError(
        "protocol",
        `Append WAL at ${formatLsn(position)}: wanted ${
          formatLsn(this.#expected)
        }, where the last ended`,
      );
    }
    if (bytes.length === 0) return;
    await this.#queue.push({ position, bytes: bytes.slice() }, options);
    this.#expected = lsnAdd(position, bytes.length);
  }

  async *acknowledgements(): AsyncIterable<Lsn> {
    let told = this.start;
    for (;;) {
      const changed = this.#changed.promise;
      if (this.#durable > told) {
        told = this.#durable;
        yield told;
      } else if (this.#failure !== undefined) {
        throw this.#failure.error;
      } else if (this.#ended) {
        return;
      } else {
        await changed;
      }
    }
  }

  async finish(options: Waiting): Promise<void> {
    this.#queue.close();
    await abortable(this.#done, options);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Stops after the round in progress; what was not acknowledged may be lost. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.abort(new AppError("cancelled", "The append stream was closed"));
    await this.#done;
  }

  /** Ends the stream with this failure, unless it has ended. */
  abort(reason: unknown): void {
    this.#stop.abort(reason);
    this.#queue.fail(reason);
  }

  /** Never rejects: a failure is kept for the client. */
  async #run(): Promise<void> {
    try {
      for (;;) {
        const chunks = await this.#queue.takeAll({ signal: this.#stop.signal });
        if (chunks === undefined) break;
        for (const chunk of chunks) await this.#write(chunk);
        await this.#commit();
      }
    } catch (error) {
      this.#failure = { error };
      this.#queue.fail(error);
    }
    await this.#segment?.[Symbol.asyncDispose]();
    this.#stop[Symbol.dispose]();
    this.#options.onEnd();
    this.#ended = true;
    this.#signalChange();
  }

  async #write({ position, bytes }: WalChunk): Promise<void> {
    const { timeline, segmentSizeBytes } = this.#options;
    assert(position === this.#written, "WAL is written without holes");
    this.#written = lsnAdd(position, bytes.length);
    for (let at = 0; at < bytes.length;) {
      this.#stop.signal.throwIfAborted();
      const here = lsnAdd(position, at);
      if (this.#segment === undefined) {
        this.#segmentStart = segmentStart(here, segmentSizeBytes);
        this.#segment = await this.#options.openSegment(
          segmentName(timeline, here, segmentSizeBytes),
        );
      }
      const room = segmentSizeBytes - segmentOffset(here, segmentSizeBytes);
      const part = bytes.subarray(at, at + room);
      await this.#segment.append(part);
      at += part.length;
      if (part.length === room) await this.#commit();
    }
  }

  async #commit(): Promise<void> {
    const segment = this.#segment;
    if (segment === undefined) return;
    if (!this.#committedOnce) await this.#options.beforeFirstCommit();
    this.#committedOnce = true;
    await segment.commit();
    const durable = lsnAdd(this.#segmentStart, segment.durableOffset);
    if (segment.complete) {
      this.#segment = undefined;
      await segment[Symbol.asyncDispose]();
    }
    if (durable > this.#durable) {
      this.#durable = durable;
      this.#options.onDurable(durable);
      this.#signalChange();
    }
  }

  #signalChange(): void {
    const changed = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    changed.resolve();
  }
}
