/**
 * {@link MemoryWalServer} with what a server's archive has besides: uploads of whole files, resets, gaps, and reading that
 * counts how much was asked for.
 *
 * @module
 */

import { concat } from "../../src/base/bytes.ts";
import { AppError } from "../../src/base/failure.ts";
import type { WalArchivePort, WalFileUpload } from "../../src/ports/wal_archive.ts";
import type {
  BackupWalRange,
  ClusterWalMetadata,
  WalFileStream,
  WalGap,
  WalStreamIdentity,
} from "../../src/ports/wal_server.ts";
import { MemoryWalServer } from "./memory_wal_server.ts";

/** See the module comment. */
export class MemoryWalArchive extends MemoryWalServer implements WalArchivePort {
  readonly uploads = new Map<string, Uint8Array>();
  readonly gaps: WalGap[] = [];
  readonly ranges: BackupWalRange[] = [];
  /** Blocks that `get` handed out so far. */
  blocksRead = 0;
  /** What `get` serves under any name, instead of what was appended. */
  endless: { readonly block: Uint8Array; readonly count: number } | undefined;

  async putFile(request: WalFileUpload): Promise<{ readonly writtenBytes: number }> {
    const blocks: Uint8Array[] = [];
    for await (const block of request.blocks) blocks.push(block.slice());
    const content = concat(blocks);
    this.uploads.set(request.name, content);
    return { writtenBytes: content.length };
  }

  async resetStream(request: WalStreamIdentity & { readonly proposal: string }): Promise<string> {
    await Promise.resolve();
    if (this.segments.size === 0) throw new AppError("usage", "Reset: the archive is empty");
    const start = [...this.segments.keys()].sort().at(-1) ?? "";
    this.gaps.push({ recordedAtMs: 1_700_000_000_123, start, end: request.proposal });
    return request.proposal;
  }

  override async metadata(cluster: string): Promise<ClusterWalMetadata> {
    return { ...await super.metadata(cluster), gaps: this.gaps };
  }

  override async closeBackup(range: BackupWalRange): Promise<readonly string[]> {
    await Promise.resolve();
    this.ranges.push(range);
    return [range.endWal];
  }

  override async get(
    request: { readonly cluster: string; readonly name: string },
  ): Promise<WalFileStream> {
    if (this.endless === undefined) return await super.get(request);
    return { segmentSizeBytes: 1 << 30, blocks: this.#endlessBlocks(this.endless) };
  }

  async *#endlessBlocks(
    { block, count }: { readonly block: Uint8Array; readonly count: number },
  ): AsyncGenerator<Uint8Array> {
    for (let i = 0; i < count; i++) {
      this.blocksRead++;
      yield await Promise.resolve(block);
    }
  }
}
