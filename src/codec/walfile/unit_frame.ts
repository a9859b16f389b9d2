/**
 * The zstd frame of a unit (FORMAT.md): made by the streamer or by the server, kept in the archive as it is. A frame from
 * a peer is held against what the format promises to people with command line tools: one frame, nothing after it, with a
 * content checksum, without a dictionary.
 *
 * @module
 */

import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";

import { assert } from "../../base/assert.ts";
import { viewOf } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { UNIT_FRAME_BYTES_MAX, UNIT_WAL_BYTES_MAX } from "./format.ts";

const PARAMETERS = {
  [constants.ZSTD_c_compressionLevel]: 1,
  [constants.ZSTD_c_checksumFlag]: 1,
};
/** Of the codec's output buffers; it takes no smaller ones. */
const CHUNK_BYTES_MIN = 1024;

// RFC 8878, sections 3.1.1.1 and 3.1.1.2.
const MAGIC = 0xfd2fb528;
const CONTENT_CHECKSUM = 0b0000_0100;
const SINGLE_SEGMENT = 0b0010_0000;
const DICTIONARY_ID = 0b0000_0011;
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;
const BLOCK_HEAD_BYTES = 3;
const RLE_BLOCK = 1;
const CHECKSUM_BYTES = 4;

/** The frame (owned) of 1 to {@link UNIT_WAL_BYTES_MAX} content bytes. */
export function compressUnit(content: Uint8Array): Uint8Array {
  assert(content.length > 0 && content.length <= UNIT_WAL_BYTES_MAX, "a unit has 1 byte to 1 MiB");
  const frame = zstdCompressSync(content, {
    params: PARAMETERS,
    // WAL shrinks to less than half, mostly: then one buffer is enough and nothing is joined.
    chunkSize: Math.max(CHUNK_BYTES_MIN, content.length >>> 1),
  });
  // The runtime appends an empty frame now and then, when the output needed several buffers.
  const end = frameEnd(frame);
  assert(end > 0 && end <= UNIT_FRAME_BYTES_MAX, "a zstd frame keeps its bound");
  return frame.subarray(0, end);
}

/**
 * The content (owned) of a frame that must have `sizeBytes` of it. Throws `corruption`; never takes more memory than
 * `sizeBytes`, which the caller has bounded.
 */
export function decompressUnit(frame: Uint8Array, sizeBytes: number): Uint8Array<ArrayBuffer> {
  if (frame.length > UNIT_FRAME_BYTES_MAX || frameEnd(frame) !== frame.length) {
    throw new AppError("corruption", "Decompress WAL: it is not one zstd frame with a checksum");
  }
  let content: Uint8Array;
  try {
    content = zstdDecompressSync(frame, {
      maxOutputLength: sizeBytes,
      // A buffer that is filled to its end would be followed by another one.
      chunkSize: Math.max(CHUNK_BYTES_MIN, sizeBytes + 1),
    });
  } catch (cause) {
    throw new AppError("corruption", "Decompress WAL: the zstd frame is damaged", { cause });
  }
  if (content.length !== sizeBytes) {
    throw new AppError(
      "corruption",
      `Decompress WAL: it has ${content.length} bytes, wanted ${sizeBytes}`,
    );
  }
  return new Uint8Array(content.buffer as ArrayBuffer, content.byteOffset, content.byteLength);
}

/** Where the first frame ends; -1 when there is none of the kind that is wanted. */
function frameEnd(bytes: Uint8Array): number {
  if (bytes.length < 5) return -1;
  const view = viewOf(bytes);
  const descriptor = view.getUint8(4);
  if (view.getUint32(0, true) !== MAGIC) return -1;
  if ((descriptor & CONTENT_CHECKSUM) === 0 || (descriptor & DICTIONARY_ID) !== 0) return -1;
  const isSingleSegment = (descriptor & SINGLE_SEGMENT) !== 0;
  const sizeBytes = CONTENT_SIZE_BYTES[descriptor >>> 6] ?? 0;
  // A single segment has no window descriptor, but at least one byte of size.
  let offset = 5 + (isSingleSegment ? Math.max(1, sizeBytes) : 1 + sizeBytes);
  for (;;) {
    if (offset + BLOCK_HEAD_BYTES > bytes.length) return -1;
    const head = view.getUint16(offset, true) | (view.getUint8(offset + 2) << 16);
    const isLast = (head & 1) === 1;
    const isRle = ((head >>> 1) & 3) === RLE_BLOCK;
    offset += BLOCK_HEAD_BYTES + (isRle ? 1 : head >>> 3);
    if (isLast) return offset + CHECKSUM_BYTES;
  }
}
