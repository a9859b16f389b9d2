/**
 * {@link MemoryWalServer} with what a server's archive has besides: uploads of whole files, and reading
 * that counts how much was asked for.
 *
 * @module
 */

import { concat } from "../../src/base/bytes.ts";
import type { WalArchivePort, WalFileUpload } from "../../src/ports/wal_archive.ts";
import type { BackupWalRange, WalFileStream } from "../../src/ports/wal_server.ts";
import { MemoryWalServer } from "./memory_wal_server.ts";

/** See the module comment. */
export class MemoryWalArchive extends MemoryWalServer implements WalArchivePort {
  readonly uploads = new Map<string, Uint8Array>();
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
