/**
 * What the archive knows of its clusters and the rules about it: whose archive it is, its segment size, its gaps, and when
 * something may be called absent. Work on one cluster's state and small files runs one at a time.
 *
 * @module
 */

import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/failure.ts";
import { checkClusterName } from "../../domain/identity.ts";
import { segmentNameStart } from "../../domain/lsn.ts";
import type { WalStreamIdentity } from "../../ports/wal_server.ts";
import { checkContinuable, nextNeeded } from "./start.ts";
import { type ClusterState, isSystemId, loadState, saveState } from "./state.ts";
import {
  clusterDirectory,
  keyPath,
  latestSegment,
  type Storage,
  stored,
  type StoredSegment,
} from "./storage.ts";

/** Throws `usage` unless a cluster of this name can have a directory beside the archive key. */
export function checkCluster(cluster: string): void {
  checkClusterName(cluster);
  if (cluster !== "wal.key") return;
  throw new AppError("usage", `Use cluster name "${cluster}": it is the name of the archive key`);
}

/** See the module comment. */
export class Clusters {
  readonly #storage: Storage;
  readonly #clock: Clock;
  readonly #turns = new Map<string, Promise<void>>();

  constructor(storage: Storage, clock: Clock) {
    this.#storage = storage;
    this.#clock = clock;
  }

  /** Waits for the work in progress. */
  async settle(): Promise<void> {
    await Promise.all(this.#turns.values());
  }

  /** Directory of a cluster. */
  path(cluster: string): string {
    return clusterDirectory(this.#storage.root, cluster);
  }

  /** Runs `work` when earlier work on the cluster's state has ended. */
  async exclusively<T>(cluster: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(cluster) ?? Promise.resolve();
    const result = before.then(work);
    const turn = result.then(() => {}, () => {/* the caller of that turn hears of it */});
    this.#turns.set(cluster, turn);
    try {
      return await result;
    } finally {
      if (this.#turns.get(cluster) === turn) this.#turns.delete(cluster);
    }
  }

  /** The state of a known cluster of this system; a new one is recorded. Throws `conflict` for another system. */
  async identify(
    { cluster, systemId }: WalStreamIdentity,
    segmentSizeBytes?: number,
  ): Promise<ClusterState> {
    checkCluster(cluster);
    if (!isSystemId(systemId)) {
      throw new AppError(
        "usage",
        `Use system identifier "${systemId}": wanted an unsigned 64-bit decimal number`,
      );
    }
    return await this.exclusively(cluster, async () => {
      const known = await loadState(this.#storage, cluster);
      if (known !== undefined && known.systemId !== systemId) {
        throw new AppError(
          "conflict",
          `Use WAL archive of cluster "${cluster}" for system ${systemId}: it belongs to system ${known.systemId}`,
          {
            hint:
              "archive a new database cluster under another cluster name, or delete the old archive",
          },
        );
      }
      const size = known?.segmentSizeBytes;
      if (size !== undefined && segmentSizeBytes !== undefined && size !== segmentSizeBytes) {
        throw new AppError(
          "conflict",
          `Store WAL of cluster "${cluster}" in segments of ${segmentSizeBytes} bytes: its archive has ${size}`,
          { hint: "archive under another cluster name after changing the WAL segment size" },
        );
      }
      if (known === undefined) await this.#proveVolume(`Record cluster "${cluster}"`);
      const state = known ?? { systemId, segmentSizeBytes: undefined, gaps: [] };
      if (known !== undefined && (segmentSizeBytes === undefined || size !== undefined)) {
        return state;
      }
      const next = { ...state, segmentSizeBytes };
      await saveState(this.#storage, cluster, next);
      if (known === undefined) {
        this.#storage.log.info("Started a WAL archive for a cluster", { cluster, systemId });
      }
      return next;
    });
  }

  /** The state of a known cluster. Throws `not_found`. */
  async require(cluster: string): Promise<ClusterState> {
    checkCluster(cluster);
    const state = await loadState(this.#storage, cluster);
    return state ?? await this.absent(`Use WAL archive of cluster "${cluster}"`);
  }

  /** Says `not_found`, but only when the archive's volume is there. */
  async absent(what: string): Promise<never> {
    await this.#proveVolume(what);
    throw new AppError("not_found", `${what}: the archive does not have it`);
  }

  async #proveVolume(what: string): Promise<void> {
    const { files, root } = this.#storage;
    await stored(`${what}: prove that the archive is mounted`, files.stat(keyPath(root)));
  }

  /** Records a gap when WAL is missing between what is stored and the segment that is about to be stored. */
  async recordHole(cluster: string, name: string, segmentSizeBytes: number): Promise<void> {
    await this.exclusively(cluster, async () => {
      const clusterPath = this.path(cluster);
      const latest = await latestSegment(this.#storage, clusterPath, name.slice(0, 8));
      const state = await this.require(cluster);
      if (latest === undefined || state.gaps.some((gap) => gap.end === name)) return;
      const needed = segmentNameStart(nextNeeded(latest, state), segmentSizeBytes);
      if (segmentNameStart(name, segmentSizeBytes) <= needed) return;
      await this.#addGap(cluster, latest, name);
    });
  }

  /** Records the gap from the latest segment to `name`. Throws `usage` when there is nothing between them. */
  async recordReset(cluster: string, name: string): Promise<void> {
    await this.exclusively(cluster, async () => {
      const { segmentSizeBytes, gaps } = await this.require(cluster);
      if (segmentSizeBytes !== undefined) checkContinuable(name, segmentSizeBytes);
      const latest = await latestSegment(this.#storage, this.path(cluster));
      if (latest === undefined || latest.name >= name) {
        throw new AppError(
          "usage",
          `Reset WAL stream of cluster "${cluster}" to "${name}": the archive ${
            latest === undefined ? "is empty" : `reaches "${latest.name}"`
          }`,
          { hint: "a gap can only be recorded after the last stored segment" },
        );
      }
      // Asked again by a client that did not hear the answer.
      if (gaps.some((gap) => gap.end === name)) return;
      await this.#addGap(cluster, latest, name);
    });
  }

  async #addGap(cluster: string, latest: StoredSegment, end: string): Promise<void> {
    const state = await this.require(cluster);
    const start = latest.complete ? latest.name : `${latest.name}.partial`;
    const gap = { recordedAtMs: this.#clock.nowMs(), start, end };
    await saveState(this.#storage, cluster, { ...state, gaps: [...state.gaps, gap] });
    this.#storage.log.error("WAL is missing: recorded a gap, recovery cannot cross it", {
      cluster,
      gapStart: start,
      gapEnd: end,
    });
  }
}
