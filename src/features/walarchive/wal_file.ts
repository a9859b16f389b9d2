/**
 * WAL files on the storage: a writer for new files and a reader that yields verified content only. A file is written by
 * one writer from its first byte and never continued by another (FORMAT.md: keystream). After a failed write or sync the
 * writer refuses everything: what the disk then holds is unknown until somebody reads and verifies it.
 *
 * @module
 */

import { assert } from "../../base/assert.ts";
import { type Bytes, concat } from "../../base/bytes.ts";
import { AppError, isKind } from "../../base/failure.ts";
import { WalFileDecoder } from "../../codec/walfile/decoder.ts";
import { WalFileEncoder } from "../../codec/walfile/encoder.ts";
import {
  HEAD_BYTES,
  SALT_BYTES,
  UNIT_WAL_BYTES_MAX,
  type WalFileDescription,
} from "../../codec/walfile/format.ts";
import type { FileHandle } from "../../ports/files.ts";
import { removeLeftover, type Storage, stored } from "./storage.ts";

const READ_BYTES = 256 << 10;

/** A file being written at a path that means nothing yet. */
export class WalFileWriter implements AsyncDisposable {
  readonly #storage: Storage;
  readonly #handle: FileHandle;
  readonly #encoder: WalFileEncoder;
  #path: string;
  #temporary = true;
  #pieces: Uint8Array[] = [];
  #pieceBytes = 0;
  #fileBytes = 0;
  #failed = false;

  private constructor(
    storage: Storage,
    opened: {
      readonly path: string;
      readonly handle: FileHandle;
      readonly description: WalFileDescription;
    },
  ) {
    this.#storage = storage;
    this.#path = opened.path;
    this.#handle = opened.handle;
    this.#encoder = new WalFileEncoder({
      archiveKey: storage.archiveKey,
      salt: storage.random.bytes(SALT_BYTES),
      description: opened.description,
    });
  }

  /** Creates the file at a path of {@link asidePath}. */
  static async create(
    storage: Storage,
    path: string,
    description: WalFileDescription,
  ): Promise<WalFileWriter> {
    const handle = await stored("Create WAL file", storage.files.open(path, "create_new"));
    return new WalFileWriter(storage, { path, handle, description });
  }

  /** Takes the next content bytes; they belong to the writer from now on. */
  async append(content: Uint8Array): Promise<void> {
    for (let rest = content; rest.length > 0;) {
      const piece = rest.subarray(0, UNIT_WAL_BYTES_MAX - this.#pieceBytes);
      this.#pieces.push(piece);
      this.#pieceBytes += piece.length;
      rest = rest.subarray(piece.length);
      if (this.#pieceBytes === UNIT_WAL_BYTES_MAX) await this.#writePieces();
    }
  }

  /** Takes the next content bytes with the unit frame of them; both belong to the writer from now on. */
  async appendFrame(content: Uint8Array, frame: Uint8Array): Promise<void> {
    await this.#writePieces();
    await this.#writeUnit(this.#encoder.unit(content, frame));
  }

  /** Makes all content taken so far durable. */
  async sync(): Promise<void> {
    await this.#writePieces();
    await this.#guard(this.#handle.sync());
  }

  /** Gives the synced file its name, durably. */
  async moveTo(path: string): Promise<void> {
    assert(this.#pieceBytes === 0, "a file is synced before it is renamed");
    await this.#guard(this.#storage.files.rename(this.#path, path));
    this.#path = path;
    this.#temporary = false;
    await this.#guard(this.#storage.files.syncDirectory(path.slice(0, path.lastIndexOf("/"))));
  }

  async #writePieces(): Promise<void> {
    const [first, ...others] = this.#pieces;
    if (first === undefined) return;
    const content = others.length === 0 ? first : concat(this.#pieces);
    this.#pieces = [];
    this.#pieceBytes = 0;
    await this.#writeUnit(this.#encoder.unit(content));
  }

  async #writeUnit(unit: Bytes): Promise<void> {
    const bytes = this.#fileBytes === 0 ? concat([this.#encoder.head, unit]) : unit;
    await this.#guard(this.#handle.write(bytes, this.#fileBytes));
    this.#fileBytes += bytes.length;
  }

  async #guard(work: Promise<void>): Promise<void> {
    try {
      assert(!this.#failed, "a WAL file is not touched after a failed write or sync");
      await stored("Write WAL file", work);
    } catch (error) {
      this.#failed = true;
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
    if (this.#temporary) await removeLeftover(this.#storage, this.#path);
  }
}

/** What a reader expects to find. */
export interface WalFileExpectation {
  readonly systemId: string;
  /** Without `.partial`. */
  readonly name: string;
  /** A partial ends, without a failure, where verified content ends. */
  readonly partial: boolean;
}

/** An open file whose head has been verified. */
export class WalFileReader implements AsyncDisposable {
  readonly #storage: Storage;
  readonly #handle: FileHandle;
  readonly #decoder: WalFileDecoder;
  readonly #expected: WalFileExpectation;
  readonly #path: string;
  #blocks: Generator<Bytes, void, undefined> | undefined;
  #position = 0;
  #ended = false;

  private constructor(
    storage: Storage,
    path: string,
    opened: { readonly handle: FileHandle; readonly expected: WalFileExpectation },
  ) {
    this.#storage = storage;
    this.#path = path;
    this.#handle = opened.handle;
    this.#expected = opened.expected;
    this.#decoder = new WalFileDecoder(storage.archiveKey);
  }

  /** Opens and verifies the head. Throws `not_found` when there is no such file, `corruption` when it is another one. */
  static async open(
    storage: Storage,
    path: string,
    expected: WalFileExpectation,
  ): Promise<WalFileReader> {
    let handle: FileHandle;
    try {
      handle = await storage.files.open(path, "read");
    } catch (error) {
      if (isKind(error, "not_found")) throw error;
      return await stored("Open WAL file", Promise.reject(error));
    }
    const reader = new WalFileReader(storage, path, { handle, expected });
    try {
      await reader.#checkHead();
      return reader;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** Content bytes when whole. */
  get sizeBytes(): number {
    return this.#decoder.description?.sizeBytes ?? 0;
  }

  async #checkHead(): Promise<void> {
    try {
      this.#decoder.push(await this.#read(HEAD_BYTES)).next();
    } catch (error) {
      throw isKind(error, "corruption") ? this.#corrupt("its head is damaged", error) : error;
    }
    const { description } = this.#decoder;
    if (description === undefined) throw this.#corrupt("its head is cut off");
    const { name, systemId } = this.#expected;
    if (description.name !== name || description.systemId !== systemId) {
      throw this.#corrupt(
        `it is "${description.name}" of system ${description.systemId}, wanted "${name}" of ${systemId}`,
      );
    }
  }

  /** The next verified content (owned), undefined at the end. Throws `corruption`, unless a partial was expected. */
  async next(): Promise<Bytes | undefined> {
    try {
      for (;;) {
        const block = this.#blocks?.next();
        if (block !== undefined && block.done !== true) return block.value;
        if (this.#ended) break;
        this.#blocks = this.#decoder.push(await this.#read(READ_BYTES));
      }
      if (!this.#expected.partial) this.#decoder.finish();
      return undefined;
    } catch (error) {
      if (!isKind(error, "corruption")) throw error;
      if (!this.#expected.partial) throw this.#corrupt("its content is damaged", error);
      // Torn by a crash in a commit that was never acknowledged, or damaged: only the first is harmless.
      this.#storage.log.warn("A partial WAL file ends in bytes that cannot be verified", {
        path: this.#path,
        verifiedBytes: this.#decoder.offset,
      }, error);
      this.#blocks = undefined;
      this.#ended = true;
      return undefined;
    }
  }

  async #read(count: number): Promise<Uint8Array> {
    const buffer = new Uint8Array(count);
    const filled = await stored("Read WAL file", this.#handle.read(buffer, this.#position));
    this.#position += filled;
    this.#ended = filled < count;
    return buffer.subarray(0, filled);
  }

  #corrupt(what: string, cause?: unknown): AppError {
    return new AppError("corruption", `Read WAL file "${this.#path}": ${what}`, {
      cause,
      hint: "klio changed nothing; restore the file from tier 2, or move it away",
    });
  }

  /** Idempotent; never throws. */
  close(): Promise<void> {
    return this.#handle.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
