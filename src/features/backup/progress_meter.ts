/**
 * Counts the progress of a backup and tells the listener.
 *
 * @module
 */

import type { TreeObserver } from "../objects/mod.ts";
import type { BackupProgress } from "./types.ts";

/** See the module comment. */
export class ProgressMeter implements TreeObserver {
  readonly #listener: ((progress: BackupProgress) => void) | undefined;
  #phase: BackupProgress["phase"] = "measuring";
  #bytes = 0;
  #bytesTotal = 0;
  #files = 0;
  #filesTotal = 0;
  #vanishedFiles = 0;

  constructor(listener: ((progress: BackupProgress) => void) | undefined) {
    this.#listener = listener;
  }

  get counts(): { bytes: number; files: number; vanishedFiles: number } {
    return { bytes: this.#bytes, files: this.#files, vanishedFiles: this.#vanishedFiles };
  }

  enter(phase: BackupProgress["phase"]): void {
    this.#phase = phase;
    this.#tell();
  }

  expect(total: { readonly bytes: number; readonly files: number }): void {
    this.#bytesTotal += total.bytes;
    this.#filesTotal += total.files;
  }

  onBytes(count: number): void {
    this.#bytes += count;
    this.#tell();
  }

  onFile(): void {
    this.#files++;
    this.#tell();
  }

  onVanished(): void {
    this.#vanishedFiles++;
  }

  #tell(): void {
    this.#listener?.({
      phase: this.#phase,
      bytes: this.#bytes,
      bytesTotal: Math.max(this.#bytes, this.#bytesTotal),
      files: this.#files,
      filesTotal: Math.max(this.#files, this.#filesTotal),
    });
  }
}
