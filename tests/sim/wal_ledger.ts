/**
 * What was promised in a simulated world, and whether it is kept: every position that the server acknowledged, every
 * position that PostgreSQL was told as flushed, every history that was stored. Looks at a disk with a fresh archive only,
 * as a restore would.
 *
 * @module
 */

import { concat } from "../../src/base/bytes.ts";
import { describeError } from "../../src/base/failure.ts";
import { SILENT } from "../../src/base/log.ts";
import {
  formatLsn,
  historyName,
  type Lsn,
  lsn,
  lsnAdd,
  lsnDistance,
  lsnMax,
  lsnMin,
  segmentName,
  segmentNameStart,
  segmentStart,
  type TimelineId,
  timelineId,
} from "../../src/domain/lsn.ts";
import { gapOver } from "../../src/domain/wal_gap.ts";
import { WalArchive } from "../../src/features/walarchive/mod.ts";
import type { WalGap } from "../../src/ports/wal_server.ts";
import { FakeClock } from "../support/fake_clock.ts";
import type { MemoryFiles } from "../support/memory_files.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { SIM_KEY, SIM_ROOT } from "../support/sim_server.ts";
import { TRUSTING } from "../support/trusting_verification.ts";
import { sameBytes, SIM_SEGMENT_BYTES, simWal } from "../support/sim_wal.ts";

/** The cluster of every world. */
export const SIM_CLUSTER = "pg";
const SEGMENT = SIM_SEGMENT_BYTES;
const WAIT = { signal: new AbortController().signal };

/** A broken promise. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** What the primary knows about history. */
export interface History {
  readonly switchPoints: readonly Lsn[];
  readonly timeline: TimelineId;
  /** How often WAL was removed that was perhaps not archived. */
  readonly losses: number;
}

interface Contents {
  /** Verified bytes per segment. */
  readonly lengths: ReadonlyMap<string, number>;
  readonly gaps: readonly WalGap[];
}

/** See the module comment. */
export class WalLedger {
  readonly #history: History;
  /** Acknowledged bytes of each segment, from its start. */
  readonly #acknowledged = new Map<string, number>();
  /** Highest flushed position per timeline. */
  readonly #flushed = new Map<TimelineId, Lsn>();
  readonly #histories = new Set<TimelineId>();
  /** Where the first stream of a timeline began that had anything acknowledged. */
  readonly #firsts = new Map<TimelineId, Lsn>();
  #told: Lsn = lsn(0n);

  constructor(history: History) {
    this.#history = history;
  }

  /** What PostgreSQL was told last. */
  get told(): Lsn {
    return this.#told;
  }

  /** The server acknowledged all of a stream up to `position`. */
  acknowledged(
    stream: { readonly timeline: TimelineId; readonly start: Lsn },
    position: Lsn,
  ): void {
    const first = this.#firsts.get(stream.timeline) ?? stream.start;
    this.#firsts.set(stream.timeline, lsnMin(first, stream.start));
    for (let start = stream.start; start < position; start = lsnAdd(start, SEGMENT)) {
      const name = segmentName(stream.timeline, start, SEGMENT);
      const length = Math.min(SEGMENT, lsnDistance(start, position));
      this.#acknowledged.set(name, Math.max(length, this.#acknowledged.get(name) ?? 0));
    }
  }

  /** The server said that it has stored a history. */
  stored(timeline: TimelineId): void {
    this.#histories.add(timeline);
  }

  /** PostgreSQL was told that it may forget all before `position`. Throws unless the server had said so. */
  flushed(timeline: TimelineId, position: Lsn): void {
    if (position === 0n) return;
    this.#told = position;
    if (!this.#holds(timeline, position, this.#acknowledged)) {
      throw new Violation(`flushed ${formatLsn(position)} on ${timeline} was never acknowledged`);
    }
    this.#flushed.set(timeline, lsnMax(position, this.#flushed.get(timeline) ?? lsn(0n)));
  }

  /** True when the last segment before `position` is there up to it, as this timeline or as an ancestor has it. */
  #holds(timeline: TimelineId, position: Lsn, lengths: ReadonlyMap<string, number>): boolean {
    const start = segmentStart(lsn(position - 1n), SEGMENT);
    const wanted = lsnDistance(start, position);
    return this.#ancestry(timeline, position)
      .some((owner) => (lengths.get(segmentName(owner, start, SEGMENT)) ?? 0) >= wanted);
  }

  /** The timelines that share the history of `timeline` up to `position`, oldest first. */
  #ancestry(timeline: TimelineId, position: Lsn): TimelineId[] {
    const owners: TimelineId[] = [];
    for (let owner = 1; owner <= timeline; owner++) {
      const left = this.#history.switchPoints[owner - 1];
      if (owner === timeline || (left !== undefined && position <= left)) {
        owners.push(timelineId(owner));
      }
    }
    return owners;
  }

  /** Throws {@link Violation} unless this disk keeps every promise. */
  async verify(files: MemoryFiles): Promise<void> {
    const contents = await this.#read(files);
    const { lengths, gaps } = contents;
    for (const [name, wanted] of this.#acknowledged) {
      const found = lengths.get(name) ?? 0;
      if (found < wanted) {
        throw new Violation(`${name} has ${found} bytes, ${wanted} were acknowledged`);
      }
    }
    for (const [timeline, position] of this.#flushed) {
      this.#checkWhole(timeline, position, contents);
    }
    const names = gaps.map((gap) => `${gap.start} to ${gap.end}`);
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    if (twice !== undefined) throw new Violation(`the gap from ${twice} is recorded twice`);
    if (gaps.length > 0 && this.#history.losses === 0) {
      throw new Violation(`gap from ${gaps[0]?.start} to ${gaps[0]?.end}, but nothing was lost`);
    }
  }

  /** As {@link verify}, and everything up to `end` is there. */
  async verifyComplete(files: MemoryFiles, end: Lsn): Promise<void> {
    this.flushed(this.#history.timeline, end);
    await this.verify(files);
  }

  /** No hole before `position` that is not recorded. */
  #checkWhole(timeline: TimelineId, position: Lsn, { lengths, gaps }: Contents): void {
    const firsts = [...this.#firsts].filter(([owner, first]) =>
      this.#ancestry(timeline, lsnAdd(first, 1)).includes(owner)
    );
    const begin = firsts.reduce((least, [, first]) => lsnMin(least, first), position);
    for (let start = begin; start < position; start = lsnAdd(start, SEGMENT)) {
      const end = lsnMin(position, lsnAdd(start, SEGMENT));
      if (this.#holds(timeline, end, lengths)) continue;
      const owners = this.#ancestry(timeline, end);
      if (owners.some((owner) => gapOver(gaps, segmentName(owner, start, SEGMENT)))) continue;
      throw new Violation(
        `WAL of timeline ${timeline} from ${formatLsn(start)} to ${formatLsn(end)} is neither ` +
          `stored nor a recorded gap, but ${formatLsn(position)} was flushed`,
      );
    }
  }

  /** Reads the whole archive and compares every byte. */
  async #read(files: MemoryFiles): Promise<Contents> {
    const options = { files, clock: new FakeClock(), random: new SeededRandom(1), log: SILENT };
    await using archive = await WalArchive.openWithKey({
      ...options,
      root: SIM_ROOT,
      beginVerification: TRUSTING,
    }, SIM_KEY);
    const lengths = new Map<string, number>();
    const known = await files.list(SIM_ROOT);
    if (!known.includes(SIM_CLUSTER)) return { lengths, gaps: [] };
    for (const directory of await files.list(`${SIM_ROOT}/${SIM_CLUSTER}`)) {
      if (directory.includes(".tmp.")) throw new Violation(`"${directory}" was left aside`);
      if (!/^[0-9A-F]{16}$/.test(directory)) continue;
      for (const name of await files.list(`${SIM_ROOT}/${SIM_CLUSTER}/${directory}`)) {
        if (name.includes(".tmp.")) throw new Violation(`"${name}" was left aside`);
        if (!/^[0-9A-F]{24}(\.partial)?$/.test(name)) continue;
        const length = await this.#compare(archive, name);
        lengths.set(name.slice(0, 24), Math.max(length, lengths.get(name.slice(0, 24)) ?? 0));
      }
    }
    // Also of every timeline that has WAL: a restore must never find WAL whose origin it cannot tell.
    const timelines = [...lengths.keys()].map((name) => Number.parseInt(name.slice(0, 8), 16));
    for (const timeline of new Set([...this.#histories, ...timelines.map(timelineId)])) {
      if (timeline > 1) {
        await archive.get({ cluster: SIM_CLUSTER, name: historyName(timeline) }, WAIT);
      }
    }
    const isKnown = lengths.size > 0 || this.#histories.size > 0;
    const gaps = isKnown ? (await archive.metadata(SIM_CLUSTER, WAIT)).gaps : [];
    return { lengths, gaps };
  }

  async #compare(archive: WalArchive, name: string): Promise<number> {
    try {
      const file = await archive.get({ cluster: SIM_CLUSTER, name }, WAIT);
      const blocks: Uint8Array[] = [];
      for await (const block of file.blocks) blocks.push(block);
      const content = concat(blocks);
      const from = segmentNameStart(name, SEGMENT);
      const to = lsnAdd(from, content.length);
      const timeline = Number.parseInt(name.slice(0, 8), 16);
      if (!sameBytes(content, simWal(timeline, { from, to }, this.#history.switchPoints))) {
        throw new Violation(`${name} holds other bytes than its timeline wrote`);
      }
      if (name.length === 24 && content.length !== SEGMENT) {
        throw new Violation(`${name} has ${content.length} bytes and no ".partial"`);
      }
      return content.length;
    } catch (error) {
      if (error instanceof Violation) throw error;
      throw new Violation(`${name} cannot be read: ${describeError(error)}`, { cause: error });
    }
  }
}
