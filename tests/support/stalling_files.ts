/**
 * {@link MemoryFiles} on a disk that can stand still: writing and syncing wait until it goes on.
 *
 * @module
 */

import type { FileHandle, OpenMode } from "../../src/ports/files.ts";
import { MemoryFiles } from "./memory_files.ts";

/** See the module comment. */
export class StallingFiles extends MemoryFiles {
  #stall: PromiseWithResolvers<void> | undefined;

  /** From now on writes and syncs wait. */
  stall(): void {
    this.#stall ??= Promise.withResolvers<void>();
  }

  /** Ends {@link stall}. */
  resume(): void {
    this.#stall?.resolve();
    this.#stall = undefined;
  }

  override async open(path: string, mode: OpenMode, permissions?: number): Promise<FileHandle> {
    const handle = await super.open(path, mode, permissions);
    return {
      read: (buffer, position) => handle.read(buffer, position),
      write: async (bytes, position) => {
        await this.#stall?.promise;
        await handle.write(bytes, position);
      },
      sync: async () => {
        await this.#stall?.promise;
        await handle.sync();
      },
      truncate: (sizeBytes) => handle.truncate(sizeBytes),
      size: () => handle.size(),
      close: () => handle.close(),
      [Symbol.asyncDispose]: () => handle.close(),
    };
  }
}
