/**
 * The WAL archive of a Klio server: start negotiation, append streams, whole files, reading, and what it can tell about
 * itself. Invariants: an acknowledged byte is durable and readable until somebody deletes it on purpose; content under a
 * name never changes; one writer per cluster; a hole in the WAL is recorded before the WAL after it is stored;
 * `not_found` is only said while the archive's volume is proven to be there.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import type { Clock, Random } from "../../base/clock.ts";
import { AppError, isKind } from "../../base/failure.ts";
import type { Logger } from "../../base/log.ts";
import {
  checkSegmentSize,
  formatLsn,
  historyName,
  type Lsn,
  lsnAdd,
  lsnDistance,
  parseWalName,
  segmentName,
  segmentNameStart,
  segmentOffset,
  type TimelineId,
} from "../../domain/lsn.ts";
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
import { checkCluster, Clusters } from "./clusters.ts";
import { loadArchiveKey } from "./key.ts";
import { recoverArchive } from "./recovery.ts";
import { SegmentWriter } from "./segment_writer.ts";
import { collectSmallFile, putSmallFile } from "./small_file.ts";
import { negotiateStart, parseSegment } from "./start.ts";
import {
  directoryOf,
  filePath,
  listSegments,
  partialPath,
  type Storage,
  storedIfPresent,
} from "./storage.ts";
import { type ClusterSummary, summarize } from "./summary.ts";
import { WalFileReader } from "./wal_file.ts";

/** Segments of one backup that are looked at: 16 TiB of WAL in segments of 16 MiB. */
const BACKUP_SEGMENTS_MAX = 1 << 20;
/** More missing names than that help nobody. */
const MISSING_NAMES_MAX = 1000;

/** What an archive needs. */
export interface WalArchiveOptions {
  readonly files: Files;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Absolute path of the directory that holds the archive and nothing else. */
  readonly root: string;
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

  private constructor(options: WalArchiveOptions, archiveKey: Uint8Array) {
    const log = options.log.with({ component: "walarchive" });
    this.#storage = { ...options, log, archiveKey };
    this.#clock = options.clock;
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
        openSegment: (segment) => this.#openSegment(cluster, systemId, segment, segmentSizeBytes),
        beforeFirstCommit: () => this.#clusters.recordHole(cluster, name, segmentSizeBytes),
        onDurable: (position) => writer.durable = position,
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
      await segment.append(block.slice()); // borrowed only until the next block
      // Committed block by block: an upload takes as long as PostgreSQL needs to fill a segment.
      if (first) await this.#clusters.recordHole(cluster, name, segmentSizeBytes);
      first = false;
      await segment.commit();
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

  /** At most {@link MISSING_NAMES_MAX} names are returned. */
  async closeBackup(range: BackupWalRange, options: Waiting): Promise<readonly string[]> {
    const { cluster, timeline, segmentSizeBytes } = range;
    checkSegmentSize(segmentSizeBytes);
    await this.#clusters.require(cluster);
    const first = segmentNameStart(parseSegment(range.startWal).name, segmentSizeBytes);
    const last = segmentNameStart(parseSegment(range.endWal).name, segmentSizeBytes);
    const count = lsnDistance(first, last) / segmentSizeBytes + 1;
    if (count < 1 || count > BACKUP_SEGMENTS_MAX) {
      throw new AppError(
        "usage",
        `Close backup "${range.backupName}": "${range.startWal}" to "${range.endWal}" are ${count} segments, wanted 1 to ${BACKUP_SEGMENTS_MAX}`,
      );
    }
    const missing: string[] = [];
    let directory = "";
    let present = new Set<string>();
    for (let index = 0; index < count && missing.length < MISSING_NAMES_MAX; index++) {
      const position = lsnAdd(first, BigInt(index) * BigInt(segmentSizeBytes));
      const name = segmentName(timeline, position, segmentSizeBytes);
      const path = directoryOf(this.#clusters.path(cluster), name);
      if (path !== directory) {
        options.signal.throwIfAborted();
        directory = path;
        present = await this.#completeSegments(path);
      }
      if (!present.has(name)) missing.push(name);
    }
    return missing;
  }

  async #completeSegments(directory: string): Promise<Set<string>> {
    const { files } = this.#storage;
    const segments = await listSegments(this.#storage, directory);
    await storedIfPresent("Sync WAL directory", files.syncDirectory(directory));
    return new Set(segments.filter((segment) => segment.complete).map((segment) => segment.name));
  }

  /** What the archive holds, per cluster; for status and metrics. Reads file sizes: not for every request. */
  async summary(options: Waiting): Promise<readonly ClusterSummary[]> {
    return await summarize(this.#storage, {
      ...options,
      streaming: (cluster) => this.#writers.get(cluster)?.durable,
    });
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
    });
  }

  async #putSmall(cluster: string, name: string, content: Uint8Array): Promise<void> {
    await this.#clusters.exclusively(cluster, async () => {
      const { systemId } = await this.#clusters.require(cluster);
      await putSmallFile(this.#storage, { cluster, name, systemId, content });
    });
  }
}
