/**
 * A pack that is being filled (reference/kopia.md 3.6). Its bytes stay in the pieces they were made in: nothing is copied
 * until the store writes them.
 *
 * @module
 */

import type { Bytes } from "../../base/bytes.ts";
import type { Random } from "../../base/clock.ts";
import { encodeIndex, type IndexEntry } from "../../codec/kopia/index.ts";
import {
  encodePostamble,
  LOCAL_INDEX_SUFFIX_BYTES,
  packName,
  type PackPrefix,
  paddingBytes,
  PREAMBLE_BYTES,
  sealLocalIndex,
} from "../../codec/kopia/pack.ts";
import type { ContentCodec } from "./content_codec.ts";

const PACK_NAME_BYTES = 16;

/** See the module comment. */
export class OpenPack {
  readonly blobId: string;
  readonly #random: Random;
  readonly #parts: Bytes[];
  readonly #entries: IndexEntry[] = [];
  #sizeBytes = PREAMBLE_BYTES;

  constructor(prefix: PackPrefix, sessionId: string, random: Random) {
    this.#random = random;
    this.blobId = packName(prefix, random.bytes(PACK_NAME_BYTES), sessionId);
    this.#parts = [random.bytes(PREAMBLE_BYTES)];
  }

  /** Bytes so far, without padding and local index: also the offset of the next content. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get entries(): readonly IndexEntry[] {
    return this.#entries;
  }

  /** Takes over `sealed`, the bytes of a content that `entry` says to lie at `sizeBytes`. */
  add(entry: IndexEntry, sealed: Bytes): void {
    this.#parts.push(sealed);
    this.#entries.push(entry);
    this.#sizeBytes += sealed.length;
  }

  /** The whole blob in parts. The pack must not be used afterwards. */
  finish(codec: ContentCodec): readonly Bytes[] {
    const random = this.#random;
    const padding = random.bytes(paddingBytes(this.#sizeBytes));
    const index = sealLocalIndex(
      encodeIndex(this.#entries),
      { random32: random.bytes(LOCAL_INDEX_SUFFIX_BYTES), nonce: codec.nonce() },
      codec.hasher,
      codec.cipher,
    );
    const postamble = encodePostamble({
      iv: index.iv,
      indexOffset: this.#sizeBytes + padding.length,
      indexLength: index.bytes.length,
    });
    return [...this.#parts, padding, index.bytes, postamble];
  }
}
