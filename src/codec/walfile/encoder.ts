/**
 * Encoder of a "klio WAL file, version 1" (FORMAT.md). One encoder makes one file from its first byte to its last: it
 * cannot be resumed and owns the only keystream position, so that no keystream byte is ever used twice. When a write of
 * its output fails, the encoder and the file must be given up together.
 *
 * @module
 */

import { assert } from "../../base/assert.ts";
import { type Bytes, concat } from "../../base/bytes.ts";
import {
  applyKeystream,
  deriveKeys,
  encodeDescription,
  encodeHeader,
  encodeLead,
  MAC_BYTES,
  UNIT_WAL_BYTES_MAX,
  unitMac,
  type WalFileDescription,
  type WalFileKeys,
} from "./format.ts";
import { compressUnit } from "./unit_frame.ts";

/** What a new file is made from. */
export interface WalFileEncoding {
  readonly archiveKey: Uint8Array;
  /** Fresh random bytes, never used for another file. */
  readonly salt: Uint8Array;
  readonly description: WalFileDescription;
}

/** See the module comment. */
export class WalFileEncoder {
  /** The first bytes of the file. */
  readonly head: Bytes;
  readonly #keys: WalFileKeys;
  readonly #sizeBytes: number;
  #mac: Bytes;
  #offset = 0;
  #bodyBytes = 0;

  constructor({ archiveKey, salt, description }: WalFileEncoding) {
    this.#keys = deriveKeys(archiveKey, salt);
    this.#sizeBytes = description.sizeBytes;
    this.#mac = encodeHeader(salt);
    this.head = concat([this.#mac, this.#seal(encodeDescription(description), new Uint8Array(0))]);
  }

  /** Content bytes encoded so far. */
  get offset(): number {
    return this.#offset;
  }

  /**
   * One unit: 1 to {@link UNIT_WAL_BYTES_MAX} content bytes (borrowed) as the next bytes of the file. `frame` is the frame
   * that holds exactly them, where there is one already.
   */
  unit(content: Uint8Array, frame: Uint8Array = compressUnit(content)): Bytes {
    this.#offset += content.length;
    assert(
      content.length > 0 && content.length <= UNIT_WAL_BYTES_MAX,
      "a unit has 1 byte to 1 MiB",
    );
    assert(this.#offset <= this.#sizeBytes, "the content is not longer than described");
    return this.#seal(encodeLead({ frameBytes: frame.length, endOffset: this.#offset }), frame);
  }

  #seal(open: Uint8Array, frame: Uint8Array): Bytes {
    // The code stands before the frame it covers: its keystream is taken now and used below.
    const parts = [open, new Uint8Array(MAC_BYTES), frame];
    const [openSecret, macKeystream, frameSecret] = applyKeystream(
      this.#keys,
      this.#bodyBytes,
      parts,
    );
    assert(openSecret && macKeystream && frameSecret, "every part is encrypted");
    this.#bodyBytes += open.length + MAC_BYTES + frame.length;
    this.#mac = unitMac(this.#keys, this.#mac, [openSecret, frameSecret]);
    const macSecret = this.#mac.map((byte, index) => byte ^ (macKeystream[index] ?? 0));
    return concat([openSecret, macSecret, frameSecret]);
  }
}

/** A whole small file at once; `content` must have the described size. */
export function encodeWalFile(encoding: WalFileEncoding, content: Uint8Array): Bytes {
  assert(content.length === encoding.description.sizeBytes, "the content has the described size");
  const encoder = new WalFileEncoder(encoding);
  const parts = [encoder.head];
  for (let offset = 0; offset < content.length; offset += UNIT_WAL_BYTES_MAX) {
    parts.push(encoder.unit(content.subarray(offset, offset + UNIT_WAL_BYTES_MAX)));
  }
  return concat(parts);
}
