/**
 * A {@link WalServer} in memory, strict about the contract: bytes must follow each other, what is stored is compared and
 * never overwritten, one writer per cluster, histories before WAL of their timeline. Tests may make it stall, refuse and
 * break, and see what it has acknowledged.
 *
 * @module
 */

import { abortable, type Waiting } from "../../src/base/abort.ts";
import { ByteQueue } from "../../src/base/byte_queue.ts";
import { equalBytes } from "../../src/base/bytes.ts";
import { AppError } from "../../src/base/failure.ts";
import {
  historyName,
  type Lsn,
  lsn,
  lsnAdd,
  segmentName,
  segmentNameStart,
  segmentOffset,
  type TimelineId,
  timelineId,
} from "../../src/domain/lsn.ts";
import type {
  BackupWalRange,
  ClusterWalMetadata,
  WalAppendStream,
  WalFileStream,
  WalGap,
  WalServer,
  WalStreamIdentity,
} from "../../src/ports/wal_server.ts";

interface StoredSegment {
  readonly bytes: Uint8Array;
  /** Valid bytes from its start. */
  length: number;
}

/** What happened at the server, in order; for assertions about order. */
export type ServerNote =
  | { readonly kind: "request_start"; readonly proposal: string }
  | { readonly kind: "history"; readonly timeline: number }
  | { readonly kind: "append"; readonly timeline: number; readonly start: Lsn }
  | { readonly kind: "reset"; readonly proposal: string }
  | { readonly kind: "durable"; readonly position: Lsn };

type AppendRequest = Parameters<WalServer["append"]>[0];

/** See the module comment. Serves one cluster. */
export class MemoryWalServer implements WalServer {
  systemId: string | undefined;
  readonly segments = new Map<string, StoredSegment>();
  readonly gaps: WalGap[] = [];
  readonly histories = new Map<string, Uint8Array>();
  readonly notes: ServerNote[] = [];
  /** The next call of one of these fails with it, once. */
  failNext: { call: "requestStart" | "append" | "send" | "finish"; error: Error } | undefined;
  /** Acknowledges nothing before `finish`: a server with a long group commit. */
  lazy = false;
  #stall: PromiseWithResolvers<void> | undefined;
  #writer: MemoryAppendStream | undefined;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();

  /** From now on nothing is taken and nothing acknowledged. */
  stall(): void {
    this.#stall ??= Promise.withResolvers<void>();
  }

  /** Ends {@link stall}. */
  resume(): void {
    this.#stall?.resolve();
    this.#stall = undefined;
  }

  get stalled(): Promise<void> | undefined {
    return this.#stall?.promise;
  }

  /** The transport breaks: the writer's stream fails. */
  breakStream(error: Error): void {
    this.#writer?.fail(error);
  }

  /** Resolves when `condition` holds; looked at after every note. */
  async until(condition: () => boolean, options: Waiting): Promise<void> {
    while (!condition()) await abortable(this.#changed.promise, options);
  }

  /** Everything before it has been acknowledged, on the stream that came last. */
  get durable(): Lsn {
    const last = this.notes.findLast((note) => note.kind === "durable");
    return last?.kind === "durable" ? last.position : lsn(0n);
  }

  note(note: ServerNote): void {
    this.notes.push(note);
    const changed = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    changed.resolve();
  }

  takeFailure(call: "requestStart" | "append" | "send" | "finish"): void {
    const failure = this.failNext;
    if (failure?.call !== call) return;
    this.failNext = undefined;
    throw failure.error;
  }

  requestStart(request: WalStreamIdentity & { readonly proposal: string }): Promise<string> {
    return this.#settle(() => {
      this.takeFailure("requestStart");
      this.note({ kind: "request_start", proposal: request.proposal });
      this.systemId ??= request.systemId;
      if (this.systemId !== request.systemId) {
        throw new AppError("conflict", "Start: the archive belongs to another system identifier");
      }
      const latest = [...this.segments.keys()].sort().at(-1);
      const stored = latest === undefined ? undefined : this.segments.get(latest);
      if (latest === undefined || stored === undefined) return request.proposal;
      const gapEnd = this.gaps.at(-1)?.end;
      if (gapEnd !== undefined && gapEnd > latest) return gapEnd;
      if (stored.length < stored.bytes.length) return `${latest}.partial`;
      const size = stored.bytes.length;
      const next = lsnAdd(segmentNameStart(latest, size), size);
      return segmentName(timelineId(Number.parseInt(latest.slice(0, 8), 16)), next, size);
    });
  }

  resetStream(request: WalStreamIdentity & { readonly proposal: string }): Promise<string> {
    return this.#settle(() => {
      const { proposal } = request;
      const latest = [...this.segments.keys()].sort().at(-1);
      if (latest === undefined || latest >= proposal) {
        throw new AppError("usage", `Reset to "${proposal}": the archive is at "${latest}"`);
      }
      const whole = this.segments.get(latest)?.length === this.segments.get(latest)?.bytes.length;
      const start = whole ? latest : `${latest}.partial`;
      this.gaps.push({ recordedAtMs: 1_700_000_000_123, start, end: proposal });
      this.note({ kind: "reset", proposal });
      return proposal;
    });
  }

  append(request: AppendRequest): Promise<WalAppendStream> {
    return this.#settle(() => {
      this.takeFailure("append");
      if (this.#writer !== undefined) throw new AppError("conflict", "Append: there is a writer");
      if (segmentOffset(request.start, request.segmentSizeBytes) !== 0) {
        throw new AppError("usage", "Append: not a segment start");
      }
      this.note({ kind: "append", timeline: request.timeline, start: request.start });
      this.#writer = new MemoryAppendStream(this, request, () => this.#writer = undefined);
      return this.#writer;
    });
  }

  putHistory(
    request: WalStreamIdentity & { readonly timeline: TimelineId; readonly content: Uint8Array },
  ): Promise<void> {
    return this.#settle(() => {
      this.note({ kind: "history", timeline: request.timeline });
      const name = historyName(request.timeline);
      const known = this.histories.get(name);
      if (known !== undefined && !equalBytes(known, request.content)) {
        throw new AppError("conflict", `Store ${name}: it has another content`);
      }
      this.histories.set(name, request.content.slice());
    });
  }

  get(request: { readonly cluster: string; readonly name: string }): Promise<WalFileStream> {
    return this.#settle(() => {
      const stored = this.segments.get(request.name.slice(0, 24));
      const whole = stored !== undefined && stored.length === stored.bytes.length;
      if (stored === undefined || whole === request.name.endsWith(".partial")) {
        throw new AppError("not_found", `Get "${request.name}": no such file`);
      }
      const content = stored.bytes.slice(0, stored.length);
      return {
        segmentSizeBytes: stored.bytes.length,
        blocks: (async function* () {
          yield await Promise.resolve(content);
        })(),
      };
    });
  }

  metadata(cluster: string): Promise<ClusterWalMetadata> {
    return this.#settle(() => {
      if (this.systemId === undefined) throw new AppError("not_found", `No cluster "${cluster}"`);
      return { systemId: this.systemId, gaps: this.gaps };
    });
  }

  closeBackup(_range: BackupWalRange): Promise<readonly string[]> {
    return Promise.reject(new AppError("usage", "Close a backup: not part of this fake"));
  }

  async #settle<T>(action: () => T): Promise<T> {
    await Promise.resolve();
    return action();
  }
}

class MemoryAppendStream implements WalAppendStream {
  readonly start: Lsn;
  readonly #server: MemoryWalServer;
  readonly #request: AppendRequest;
  readonly #release: () => void;
  readonly #positions = new ByteQueue<Lsn>({ bytesMax: 1 << 20, itemsMax: 1 << 20 }, () => 8);
  readonly #closed = new AbortController();
  #end: Lsn;

  constructor(server: MemoryWalServer, request: AppendRequest, release: () => void) {
    this.#server = server;
    this.#request = request;
    this.#release = release;
    this.start = this.#end = request.start;
  }

  fail(error: Error): void {
    this.#positions.fail(error);
    this.#closed.abort(error);
  }

  async send(position: Lsn, bytes: Uint8Array, options: Waiting): Promise<void> {
    this.#server.takeFailure("send");
    await this.#whileStalled(options);
    if (position !== this.#end) throw new AppError("protocol", "Append: bytes do not follow");
    for (let offset = 0; offset < bytes.length;) {
      offset += this.#store(bytes.subarray(offset));
    }
    if (!this.#server.lazy) this.#acknowledge();
  }

  #acknowledge(): void {
    this.#server.note({ kind: "durable", position: this.#end });
    this.#positions.tryPush(this.#end);
  }

  async #whileStalled(options: Waiting): Promise<void> {
    for (let stalled; (stalled = this.#server.stalled) !== undefined;) {
      await abortable(abortable(stalled, this.#closed), options);
    }
    this.#closed.signal.throwIfAborted();
  }

  /** Stores what fits into the current segment; how much that was. */
  #store(bytes: Uint8Array): number {
    const { timeline, segmentSizeBytes } = this.#request;
    if (timeline > 1 && !this.#server.histories.has(historyName(timeline))) {
      throw new AppError("protocol", "Append: WAL of a timeline without its history");
    }
    const name = segmentName(timeline, this.#end, segmentSizeBytes);
    const offset = segmentOffset(this.#end, segmentSizeBytes);
    let segment = this.#server.segments.get(name);
    if (segment === undefined) {
      segment = { bytes: new Uint8Array(segmentSizeBytes), length: 0 };
      this.#server.segments.set(name, segment);
    }
    const part = bytes.subarray(0, segmentSizeBytes - offset);
    const known = Math.max(0, Math.min(part.length, segment.length - offset));
    if (!equalBytes(part.subarray(0, known), segment.bytes.subarray(offset, offset + known))) {
      throw new AppError("conflict", `Append to ${name}: the archive holds other bytes`);
    }
    segment.bytes.set(part.subarray(known), offset + known);
    segment.length = Math.max(segment.length, offset + part.length);
    this.#end = lsnAdd(this.#end, part.length);
    return part.length;
  }

  async *acknowledgements(): AsyncGenerator<Lsn> {
    for (;;) {
      const positions = await this.#positions.takeAll({ signal: new AbortController().signal });
      const last = positions?.at(-1);
      if (last === undefined) return;
      yield last;
    }
  }

  async finish(options: Waiting): Promise<void> {
    this.#server.takeFailure("finish");
    await this.#whileStalled(options);
    if (this.#server.lazy) this.#acknowledge();
    this.#positions.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.resolve();
    this.fail(new AppError("cancelled", "The append stream was closed"));
    this.#release();
  }
}
