/**
 * The WAL archive of a Klio server: start negotiation, append streams, whole files, reading, and what it can tell about
 * itself. Invariants: an acknowledged byte is durable and readable until somebody deletes it on purpose; content under a
 * name never changes; one writer per cluster; a hole in the WAL is recorded before the WAL after it is stored;
 * `not_found` is only said while the archive's volume is proven to be there.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { fromUtf8 } from "../../base/bytes.ts";
import type { Clock, Random } from "../../base/clock.ts";
import { AppError, isKind } from "../../base/failure.ts";
import type { Logger } from "../../base/log.ts";
import {
  checkSegmentSize,
  formatLsn,
  historyName,
  type Lsn,
  parseWalName,
  segmentName,
  segmentNameStart,
  segmentOffset,
  type TimelineId,
} from "../../domain/lsn.ts";
import { encodeVerdict, type WalVerifierOptions } from "../../codec/walrecord/mod.ts";
import { parseTimelineHistory } from "../../domain/timeline_history.ts";
import type { Files } from "../../ports/files.ts";
import type { WalArchivePort, WalFileUpload } from "../../ports/wal_archive.ts";
import type {
  BackupWalRange,
  ClusterWalMetadata,
  WalAppendStream,
  WalFileStream,
  WalStreamIdentity,
} from "../../ports/wal_server.ts";
import { AppendStream } from "./append_stream.ts";
import { missingSegments } from "./backup_range.ts";
import { checkCluster, Clusters } from "./clusters.ts";
import { loadArchiveKey } from "./key.ts";
import { recoverArchive } from "./recovery.ts";
import { SegmentWriter } from "./segment_writer.ts";
import { collectSmallFile, putSmallFile, readSmallFile } from "./small_file.ts";
import { checkContinuable, negotiateStart, parseSegment } from "./start.ts";
import { filePath, partialPath, type Storage, verdictPath } from "./storage.ts";
import { type ClusterSummary, summarize } from "./summary.ts";
import type { BeginVerification, NamedVerdict, StreamVerification } from "./verification.ts";
import { WalFileReader } from "./wal_file.ts";

/** What an archive needs. */
export interface WalArchiveOptions {
  readonly files: Files;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Absolute path of the directory that holds the archive and nothing else. */
  readonly root: string;
  /** Looks at all WAL segments before they are acknowledged. */
  readonly beginVerification: BeginVerification;
}

interface Writer {
  readonly openedAtMs: number;
  /** What it is, for the one who is refused. */
  readonly what: string;
  stream: AppendStream | undefined;
  durable: Lsn | undefined;
}

/** See the module comment. */
export class WalArchive implements WalArchivePort, AsyncDisposable {
  readonly #storage: Storage;
  readonly #clock: Clock;
  readonly #writers = new Map<string, Writer>();
  readonly #clusters: Clusters;
  readonly #beginVerification: BeginVerification;

  private constructor(options: WalArchiveOptions, archiveKey: Uint8Array) {
    const log = options.log.with({ component: "walarchive" });
    this.#storage = { ...options, log, archiveKey };
    this.#clock = options.clock;
    this.#beginVerification = options.beginVerification;
    this.#clusters = new Clusters(this.#storage, options.clock);
  }

  /**
   * Opens the archive, creating it in an empty directory, and cleans up after a crash. `password` protects the archive key.
   * Throws `permission` for a wrong password.
   */
  static async open(
    options: WalArchiveOptions & { readonly password: string },
  ): Promise<WalArchive> {
    return await WalArchive.openWithKey(options, await loadArchiveKey(options));
  }

  /** Like {@link open} for one who has the key already. */
  static async openWithKey(
    options: WalArchiveOptions,
    archiveKey: Uint8Array,
  ): Promise<WalArchive> {
    const archive = new WalArchive(options, archiveKey);
    await recoverArchive(archive.#storage);
    return archive;
  }

  /** Ends all append streams; what they acknowledged stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const writer of [...this.#writers.values()]) await writer.stream?.[Symbol.asyncDispose]();
    await this.#clusters.settle();
  }

  async requestStart(
    request: WalStreamIdentity & { readonly proposal: string },
    options: Waiting,
  ): Promise<string> {
    options.signal.throwIfAborted();
    const proposal = parseSegment(request.proposal);
    const state = await this.#clusters.identify(request);
    return await negotiateStart(this.#storage, { cluster: request.cluster, proposal, state });
  }

  async append(
    request: WalStreamIdentity & {
      readonly timeline: TimelineId;
      readonly start: Lsn;
      readonly segmentSizeBytes: number;
    },
    options: Waiting,
  ): Promise<WalAppendStream> {
    options.signal.throwIfAborted();
    const { cluster, systemId, timeline, start, segmentSizeBytes } = request;
    checkSegmentSize(segmentSizeBytes);
    if (segmentOffset(start, segmentSizeBytes) !== 0) {
      throw new AppError(
        "usage",
        `Append WAL at ${
          formatLsn(start)
        }: wanted the start of a segment of ${segmentSizeBytes} bytes`,
      );
    }
    const what = `an append stream on timeline ${timeline} from ${formatLsn(start)}`;
    const writer = this.#acquire(cluster, what);
    try {
      await this.#clusters.identify(request, segmentSizeBytes);
      const name = segmentName(timeline, start, segmentSizeBytes);
      writer.stream = new AppendStream({
        timeline,
        start,
        segmentSizeBytes,
        verification: await this.#verify(cluster, { systemId, timeline, start, segmentSizeBytes }),
        openSegment: (segment) => this.#openSegment(cluster, systemId, segment, segmentSizeBytes),
        beforeFirstCommit: () => this.#clusters.recordHole(cluster, name, segmentSizeBytes),
        onDurable: (position) => writer.durable = position,
        keepVerdict: (verdict) => this.#keepVerdict(cluster, verdict),
        onEnd: () => this.#writers.delete(cluster),
      });
      return writer.stream;
    } catch (error) {
      this.#writers.delete(cluster);
      throw error;
    }
  }

  async putFile(
    request: WalFileUpload,
    options: Waiting,
  ): Promise<{ readonly writtenBytes: number }> {
    options.signal.throwIfAborted();
    const { cluster, segmentSizeBytes } = request;
    const wal = parseWalName(request.name);
    const state = await this.#clusters.require(cluster);
    if (wal.kind !== "segment") {
      const content = await collectSmallFile(request);
      await this.#putSmall(cluster, wal.name, content);
      return { writtenBytes: content.length };
    }
    checkSegmentSize(segmentSizeBytes);
    checkContinuable(wal.name, segmentSizeBytes);
    this.#acquire(cluster, `an upload of "${wal.name}"`);
    try {
      await this.#clusters.identify({ cluster, systemId: state.systemId }, segmentSizeBytes);
      return { writtenBytes: await this.#putSegment(request, wal.name, state.systemId, options) };
    } finally {
      this.#writers.delete(cluster);
    }
  }

  async #putSegment(
    request: WalFileUpload,
    name: string,
    systemId: string,
    { signal }: Waiting,
  ): Promise<number> {
    const { cluster, segmentSizeBytes } = request;
    await using segment = await this.#openSegment(cluster, systemId, name, segmentSizeBytes);
    const verification = await this.#verify(cluster, {
      systemId,
      timeline: parseWalName(name).timeline,
      start: segmentNameStart(name, segmentSizeBytes),
      segmentSizeBytes,
    });
    let first = true;
    for await (const block of request.blocks) {
      signal.throwIfAborted();
      if (block.length === 0) continue;
      if (segment.offset + block.length > segmentSizeBytes) {
        throw new AppError(
          "protocol",
          `Store WAL segment "${name}": more content than its ${segmentSizeBytes} bytes`,
        );
      }
      const { acceptedBytes, refusal, verdicts } = verification.inspect(block);
      await segment.append(block.slice(0, acceptedBytes)); // borrowed only until the next block
      // Committed block by block: an upload takes as long as PostgreSQL needs to fill a segment.
      if (first) await this.#clusters.recordHole(cluster, name, segmentSizeBytes);
      first = false;
      await segment.commit();
      for (const verdict of verdicts) await this.#keepVerdict(cluster, verdict);
      if (refusal !== undefined) throw refusal; // what lies before the damage is stored
    }
    return segment.offset;
  }

  async putHistory(
    request: WalStreamIdentity & { readonly timeline: TimelineId; readonly content: Uint8Array },
    options: Waiting,
  ): Promise<void> {
    options.signal.throwIfAborted();
    await this.#clusters.identify(request);
    await this.#putSmall(request.cluster, historyName(request.timeline), request.content);
  }

  async get(
    request: { readonly cluster: string; readonly name: string },
    options: Waiting,
  ): Promise<WalFileStream> {
    options.signal.throwIfAborted();
    const open = () => this.#openForRead(request.cluster, request.name);
    await using first = await open();
    return {
      segmentSizeBytes: first.sizeBytes,
      blocks: (async function* () {
        await using reader = await open();
        for (;;) {
          options.signal.throwIfAborted();
          const block = await reader.next();
          if (block === undefined) return;
          yield block;
        }
      })(),
    };
  }

  async #openForRead(cluster: string, name: string): Promise<WalFileReader> {
    const wal = parseWalName(name);
    const { systemId } = await this.#clusters.require(cluster);
    const clusterPath = this.#clusters.path(cluster);
    const partial = wal.kind === "segment" && wal.partial;
    // A partial may become complete between the two looks, never the other way round.
    for (const asPartial of partial ? [true, false] : [false]) {
      const path = asPartial ? partialPath(clusterPath, wal.name) : filePath(clusterPath, wal.name);
      try {
        const expected = { systemId, name: wal.name, partial: asPartial };
        return await WalFileReader.open(this.#storage, path, expected);
      } catch (error) {
        if (!isKind(error, "not_found")) throw error;
      }
    }
    return await this.#clusters.absent(`Get WAL file "${name}" of cluster "${cluster}"`);
  }

  async metadata(cluster: string, options: Waiting): Promise<ClusterWalMetadata> {
    options.signal.throwIfAborted();
    const { systemId, gaps } = await this.#clusters.require(cluster);
    return { systemId, gaps };
  }

  async resetStream(
    request: WalStreamIdentity & { readonly proposal: string },
    options: Waiting,
  ): Promise<string> {
    options.signal.throwIfAborted();
    const { name } = parseSegment(request.proposal);
    await this.#clusters.identify(request);
    await this.#clusters.recordReset(request.cluster, name);
    return name;
  }

  async closeBackup(range: BackupWalRange, options: Waiting): Promise<readonly string[]> {
    checkSegmentSize(range.segmentSizeBytes);
    await this.#clusters.require(range.cluster);
    return await missingSegments(this.#storage, this.#clusters.path(range.cluster), range, options);
  }

  /** What the archive holds, per cluster; for status and metrics. Reads file sizes: not for every request. */
  async summary(options: Waiting): Promise<readonly ClusterSummary[]> {
    return await summarize(this.#storage, {
      ...options,
      streaming: (cluster) => this.#writers.get(cluster)?.durable,
    });
  }

  /** With the history of the timeline, if the archive has it, the timeline of every page is known. */
  async #verify(cluster: string, stream: WalVerifierOptions): Promise<StreamVerification> {
    const { systemId, timeline } = stream;
    const name = historyName(timeline);
    const content = await readSmallFile(this.#storage, { cluster, name, systemId });
    const history = content && parseTimelineHistory(timeline, fromUtf8(content));
    return this.#beginVerification({ cluster, ...stream, ...(history && { history }) });
  }

  /** A verdict can be had again from the segment: that it could not be kept is no reason to stop archiving. */
  async #keepVerdict(cluster: string, { name, verdict }: NamedVerdict): Promise<void> {
    const path = verdictPath(this.#clusters.path(cluster), name);
    try {
      await this.#storage.files.writeFileAtomic(path, encodeVerdict(verdict));
    } catch (error) {
      this.#storage.log.warn("Cannot keep the verdict of a WAL segment", { cluster, name }, error);
    }
  }

  #acquire(cluster: string, what: string): Writer {
    checkCluster(cluster);
    const holder = this.#writers.get(cluster);
    if (holder !== undefined) {
      const since = new Date(holder.openedAtMs).toISOString();
      throw new AppError(
        "conflict",
        `Write WAL of cluster "${cluster}": ${holder.what} has been open since ${since}`,
        {
          hint:
            "only one client may stream WAL of a cluster; stop the other, or wait until it is gone",
        },
      );
    }
    const openedAtMs = this.#clock.nowMs();
    const writer: Writer = { openedAtMs, what, stream: undefined, durable: undefined };
    this.#writers.set(cluster, writer);
    return writer;
  }

  #openSegment(
    cluster: string,
    systemId: string,
    name: string,
    sizeBytes: number,
  ): Promise<SegmentWriter> {
    const clusterPath = this.#clusters.path(cluster);
    return SegmentWriter.open(this.#storage, {
      clusterPath,
      description: { systemId, name, sizeBytes },
      verifyAlone: () =>
        this.#beginVerification({
          cluster,
          systemId,
          timeline: parseWalName(name).timeline,
          start: segmentNameStart(name, sizeBytes),
          segmentSizeBytes: sizeBytes,
        }),
    });
  }

  /** Throws `corruption` for a history that nobody could read: it would be kept for good, and starts ask for it. */
  async #putSmall(cluster: string, name: string, content: Uint8Array): Promise<void> {
    const wal = parseWalName(name);
    if (wal.kind === "history") parseTimelineHistory(wal.timeline, fromUtf8(content));
    await this.#clusters.exclusively(cluster, async () => {
      const { systemId } = await this.#clusters.require(cluster);
      await putSmallFile(this.#storage, { cluster, name, systemId, content });
    });
  }
}
