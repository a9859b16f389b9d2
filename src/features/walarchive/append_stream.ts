/**
 * The server's end of an append stream: a queue bounded by bytes and one task that drains it. Each round takes everything
 * queued, writes it, syncs once and then acknowledges (group commit): the busier the disk, the more bytes share a sync.
 * Nothing is acknowledged before the sync and the directory sync that make it durable have returned, and nothing that the
 * verification has not passed.
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
  LSN_MAX,
  lsnAdd,
  segmentName,
  segmentOffset,
  segmentStart,
  type TimelineId,
} from "../../domain/lsn.ts";
import type { WalAppendStream } from "../../ports/wal_server.ts";
import type { SegmentWriter } from "./segment_writer.ts";
import type { NamedVerdict, StreamVerification } from "./verification.ts";

const QUEUE_LIMITS = { bytesMax: 8 << 20, itemsMax: 4096 };

/** What a stream needs from the archive. */
export interface AppendStreamOptions {
  readonly timeline: TimelineId;
  /** A segment start. */
  readonly start: Lsn;
  readonly segmentSizeBytes: number;
  readonly verification: StreamVerification;
  /** Opens the writer of the segment with this name. */
  openSegment(name: string): Promise<SegmentWriter>;
  /** Runs before the first bytes of the stream become durable. */
  beforeFirstCommit(): Promise<void>;
  /** Hears of every position that is going to be acknowledged, before the client does. */
  onDurable(position: Lsn): void;
  /** Keeps what is known of a segment that is complete now. */
  keepVerdict(verdict: NamedVerdict): Promise<void>;
  /** Runs when the stream has let go of everything. */
  onEnd(): void;
}

interface WalChunk {
  readonly position: Lsn;
  readonly bytes: Uint8Array;
  readonly frame: Uint8Array | undefined;
}

/** See the module comment. */
export class AppendStream implements WalAppendStream {
  readonly start: Lsn;
  readonly #options: AppendStreamOptions;
  readonly #queue = new ByteQueue<WalChunk>(
    QUEUE_LIMITS,
    (chunk) => chunk.bytes.length + (chunk.frame?.length ?? 0),
  );
  readonly #stop: LinkedSignal;
  readonly #done: Promise<void>;
  #segment: SegmentWriter | undefined;
  #segmentStart: Lsn;
  #expected: Lsn;
  #written: Lsn;
  /** What is acknowledged: durable and verified. */
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

  async send(
    position: Lsn,
    bytes: Uint8Array,
    options: Waiting & { readonly frame?: Uint8Array },
  ): Promise<void> {
    if (position !== this.#expected) {
      throw new AppError(
        "protocol",
        `Append WAL at ${formatLsn(position)}: wanted ${
          formatLsn(this.#expected)
        }, where the last ended`,
      );
    }
    if (bytes.length === 0) return;
    if (position + BigInt(bytes.length) > LSN_MAX) {
      throw new AppError(
        "protocol",
        `Append ${bytes.length} bytes of WAL at ${
          formatLsn(position)
        }: no WAL position is that high`,
      );
    }
    await this.#queue.push({ position, bytes, frame: options.frame }, options);
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

  async #write(chunk: WalChunk): Promise<void> {
    assert(chunk.position === this.#written, "WAL is written without holes");
    const { acceptedBytes, refusal, verdicts } = this.#options.verification.inspect(chunk.bytes);
    const whole = acceptedBytes === chunk.bytes.length;
    await this.#store(
      whole ? chunk : { ...chunk, bytes: chunk.bytes.subarray(0, acceptedBytes), frame: undefined },
    );
    for (const verdict of verdicts) await this.#options.keepVerdict(verdict);
    if (refusal === undefined) return;
    await this.#commit(); // what lies before the damage is good
    throw refusal;
  }

  async #store({ position, bytes, frame }: WalChunk): Promise<void> {
    const { timeline, segmentSizeBytes } = this.#options;
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
      await this.#segment.append(part, part.length === bytes.length ? frame : undefined);
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
    const durable = this.#options.verification.acknowledgeable(
      lsnAdd(this.#segmentStart, segment.durableOffset),
    );
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
