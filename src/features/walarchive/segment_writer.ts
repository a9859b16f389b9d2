/**
 * Writes one segment of a cluster; the caller holds the cluster's writer lock. The content always comes from the start of
 * the segment. What the archive already holds is compared with it and never overwritten (but for the end of a partial that
 * no verification ever passed): the new file is written aside and takes the old one's place only when it is durable and
 * holds at least as much.
 *
 * States: `aside` (nothing of ours visible) -> `partial` (our file is `<name>.partial`) -> `complete`; or `compare` when the
 * complete segment was there before.
 *
 * @module
 */

import { equalBytes } from "../../base/bytes.ts";
import { AppError, isKind } from "../../base/failure.ts";
import { formatLsn, lsnAdd, parseWalName, segmentNameStart } from "../../domain/lsn.ts";
import type { WalFileDescription } from "../../codec/walfile/format.ts";
import {
  asidePath,
  directoryOf,
  filePath,
  partialPath,
  removeLeftover,
  type Storage,
  stored,
} from "./storage.ts";
import type { StreamVerification } from "./verification.ts";
import { WalFileReader, WalFileWriter } from "./wal_file.ts";

/** Which segment to write. */
export interface SegmentTarget {
  readonly clusterPath: string;
  readonly description: WalFileDescription;
  /** Begins a verification of this segment alone, from its start. */
  readonly verifyAlone: () => StreamVerification;
}

/** See the module comment. */
export class SegmentWriter implements AsyncDisposable {
  readonly #storage: Storage;
  readonly #target: SegmentTarget;
  #state: "compare" | "aside" | "partial" | "complete" = "aside";
  /** What the archive held before, as far as it has not been compared yet. */
  #old: WalFileReader | undefined;
  #oldBlock: Uint8Array = new Uint8Array(0);
  #hadPartial = false;
  #writer: WalFileWriter | undefined;
  #offset = 0;
  #durableOffset = 0;

  private constructor(storage: Storage, target: SegmentTarget) {
    this.#storage = storage;
    this.#target = target;
  }

  /** Looks at what is there already. */
  static async open(storage: Storage, target: SegmentTarget): Promise<SegmentWriter> {
    const writer = new SegmentWriter(storage, target);
    try {
      await writer.#open();
      return writer;
    } catch (error) {
      await writer[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Content bytes taken so far. */
  get offset(): number {
    return this.#offset;
  }

  /** Content bytes of which this writer knows that they survive a crash. */
  get durableOffset(): number {
    return this.#durableOffset;
  }

  /** True when the whole segment is in the archive. */
  get complete(): boolean {
    return this.#offset === this.#target.description.sizeBytes &&
      this.#durableOffset === this.#offset;
  }

  async #open(): Promise<void> {
    const { clusterPath, description: { name, systemId, sizeBytes } } = this.#target;
    const { files } = this.#storage;
    const directory = directoryOf(clusterPath, name);
    await stored("Create WAL directory", files.makeDirectory(directory));
    const expected = { name, systemId };
    this.#old = await this.#tryRead(filePath(clusterPath, name), { ...expected, partial: false });
    if (this.#old !== undefined) {
      this.#state = "compare";
      // Whoever renamed it may have died before the directory was synced.
      await stored("Sync WAL directory", files.syncDirectory(directory));
    } else {
      const path = partialPath(clusterPath, name);
      this.#old = await this.#tryRead(path, { ...expected, partial: true });
      this.#hadPartial = this.#old !== undefined;
    }
    if (this.#old !== undefined && this.#old.sizeBytes !== sizeBytes) {
      throw this.#differs(`has ${sizeBytes} bytes, the archive's has another size`);
    }
  }

  async #tryRead(
    path: string,
    expected: Parameters<typeof WalFileReader.open>[2],
  ): Promise<WalFileReader | undefined> {
    try {
      return await WalFileReader.open(this.#storage, path, expected);
    } catch (error) {
      if (isKind(error, "not_found")) return undefined;
      throw error;
    }
  }

  /**
   * Takes the next bytes of the segment, and the unit frame of them if there is one already; both belong to the writer from
   * now on. Throws `conflict` when the archive holds others.
   */
  async append(bytes: Uint8Array, frame?: Uint8Array): Promise<void> {
    await this.#compare(bytes);
    if (this.#state !== "compare") {
      const { clusterPath, description } = this.#target;
      this.#writer ??= await WalFileWriter.create(
        this.#storage,
        asidePath(partialPath(clusterPath, description.name), this.#storage.random),
        description,
      );
      if (frame === undefined) await this.#writer.append(bytes);
      else await this.#writer.appendFrame(bytes, frame);
    }
    this.#offset += bytes.length;
  }

  async #compare(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length && await this.#oldLeft();) {
      const count = Math.min(bytes.length - at, this.#oldBlock.length);
      if (!equalBytes(bytes.subarray(at, at + count), this.#oldBlock.subarray(0, count))) {
        const from = this.#offset + at;
        if (await this.#isUnacknowledged(from)) return await this.#closeOld();
        throw this.#differs(`differs from the archive's between bytes ${from} and ${from + count}`);
      }
      this.#oldBlock = this.#oldBlock.subarray(count);
      at += count;
    }
  }

  /**
   * True when the archive's partial was never acknowledged from this offset on: the beginning of a record that turned out to
   * be damaged is stored before its end tells. It must not stand in the way of the true bytes.
   */
  async #isUnacknowledged(offset: number): Promise<boolean> {
    if (!this.#hadPartial) return false;
    const { clusterPath, description: { name, systemId }, verifyAlone } = this.#target;
    const { timeline } = parseWalName(name);
    const start = segmentNameStart(name, this.#target.description.sizeBytes);
    const verification = verifyAlone();
    const path = partialPath(clusterPath, name);
    const expected = { name, systemId, partial: true };
    await using old = await WalFileReader.open(this.#storage, path, expected);
    let end = start;
    for (let block = await old.next(); block !== undefined; block = await old.next()) {
      end = lsnAdd(end, block.length);
      if (verification.inspect(block).refusal !== undefined) break;
    }
    const acknowledged = verification.acknowledgeable(end);
    if (lsnAdd(start, offset) < acknowledged) return false;
    this.#storage.log.warn("Replacing WAL that was stored but never acknowledged", {
      path,
      timeline,
      from_lsn: formatLsn(acknowledged),
    });
    return true;
  }

  /** True while the archive holds more than was compared. */
  async #oldLeft(): Promise<boolean> {
    while (this.#old !== undefined && this.#oldBlock.length === 0) {
      const block = await this.#old.next();
      if (block === undefined) await this.#closeOld();
      else this.#oldBlock = block;
    }
    return this.#old !== undefined;
  }

  async #closeOld(): Promise<void> {
    await this.#old?.close();
    this.#old = undefined;
    this.#oldBlock = new Uint8Array(0);
  }

  /**
   * Makes what was taken durable as far as it adds to the archive; see {@link durableOffset}. Bytes that an older partial
   * holds count only once our file has replaced it: nobody knows whether its last ones were ever synced.
   */
  async commit(): Promise<void> {
    const { clusterPath, description: { name, sizeBytes } } = this.#target;
    if (this.#state === "compare") {
      this.#durableOffset = this.#offset;
      // Reads the end too, so that a damaged tail of the old file is found.
      if (this.#offset === sizeBytes) await this.#oldLeft();
      return;
    }
    if (this.#writer === undefined || this.#offset === this.#durableOffset) return;
    if (await this.#oldLeft()) return;
    await this.#writer.sync();
    if (this.#offset === sizeBytes) {
      const stale = this.#hadPartial && this.#state === "aside";
      await this.#writer.moveTo(filePath(clusterPath, name));
      this.#state = "complete";
      if (stale) await removeLeftover(this.#storage, partialPath(clusterPath, name));
    } else if (this.#state === "aside") {
      await this.#writer.moveTo(partialPath(clusterPath, name));
      this.#state = "partial";
    }
    this.#durableOffset = this.#offset;
  }

  #differs(how: string): AppError {
    const { name } = this.#target.description;
    return new AppError("conflict", `Store WAL segment "${name}": the new content ${how}`, {
      hint: "another server may be writing under this cluster's name; the archive was not changed",
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#closeOld();
    await this.#writer?.[Symbol.asyncDispose]();
  }
}
