/**
 * Content compression: a 4-byte big-endian header id, then the codec's stream (reference/kopia.md 3.5). Reading bounds
 * the output before anything of that size is allocated. The s2 and lz4 families are not built in.
 *
 * @module
 */

import {
  constants,
  deflateRawSync,
  gunzipSync,
  gzipSync,
  inflateRawSync,
  zstdCompressSync,
  zstdDecompressSync,
} from "node:zlib";
import { type Bytes, viewOf } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";

/** Stored raw, without a header. */
export const COMPRESSION_NONE = 0;
/** Default of our repositories: zstd level 1. */
export const COMPRESSION_ZSTD_FASTEST = 0x1101;

const HEADER_BYTES = 4;

interface Codec {
  compress(data: Uint8Array): Uint8Array;
  decompress(data: Uint8Array, maxOutputLength: number): Uint8Array;
}

const CODECS: ReadonlyMap<number, Codec> = new Map([
  [0x1000, gzip(6)],
  [0x1001, gzip(1)],
  [0x1002, gzip(9)],
  [0x1100, zstd(3)],
  [COMPRESSION_ZSTD_FASTEST, zstd(1)],
  [0x1102, zstd(7)],
  [0x1103, zstd(11)],
  [0x1300, gzip(6)],
  [0x1301, gzip(1)],
  [0x1302, gzip(9)],
  [0x1500, deflate(6)],
  [0x1501, deflate(1)],
  [0x1502, deflate(9)],
]);

function gzip(level: number): Codec {
  return {
    compress: (data) => gzipSync(data, { level }),
    decompress: (data, maxOutputLength) => gunzipSync(data, { maxOutputLength }),
  };
}

function deflate(level: number): Codec {
  return {
    compress: (data) => deflateRawSync(data, { level }),
    decompress: (data, maxOutputLength) => inflateRawSync(data, { maxOutputLength }),
  };
}

function zstd(level: number): Codec {
  const params = { [constants.ZSTD_c_compressionLevel]: level };
  return {
    compress: (data) => {
      const stream = zstdCompressSync(data, { params });
      return stream.subarray(0, zstdFrameBytes(stream));
    },
    decompress: (data, maxOutputLength) => {
      if (zstdFrameBytes(data) !== data.length) throw new RangeError("not one whole zstd frame");
      return zstdDecompressSync(data, { maxOutputLength });
    },
  };
}

function codecOf(headerId: number): Codec {
  const codec = CODECS.get(headerId);
  if (codec === undefined) {
    throw new AppError("config", `Use compression 0x${headerId.toString(16)}: not supported`, {
      hint: "supported: the zstd, gzip, pgzip and deflate families",
    });
  }
  return codec;
}

/**
 * Header and compressed stream, owned; undefined when that is not smaller than `data`, which is then to be stored raw
 * with id 0. Throws `config` for an unknown id.
 */
export function compress(headerId: number, data: Uint8Array): Bytes | undefined {
  const stream = codecOf(headerId).compress(data);
  const sizeBytes = HEADER_BYTES + stream.length;
  if (sizeBytes >= data.length) return undefined;
  const whole = new Uint8Array(sizeBytes);
  viewOf(whole).setUint32(0, headerId);
  whole.set(stream, HEADER_BYTES);
  return whole;
}

/**
 * The plain bytes of what {@link compress} made, owned and at most `lengthMax`. Throws `corruption` when the stream is
 * malformed, cut or longer, `config` for an unknown header id.
 */
export function decompress(data: Uint8Array, lengthMax: number): Bytes {
  if (data.length < HEADER_BYTES) {
    throw new AppError("corruption", `Decompress ${data.length} bytes: no header`);
  }
  const codec = codecOf(viewOf(data).getUint32(0));
  return inflateBounded(
    (maxOutputLength) => codec.decompress(data.subarray(HEADER_BYTES), maxOutputLength),
    lengthMax,
  );
}

/** The bytes of a gzip stream, at most `lengthMax`. Throws `corruption`. */
export function gunzipBounded(data: Uint8Array, lengthMax: number): Bytes {
  return inflateBounded((maxOutputLength) => gunzipSync(data, { maxOutputLength }), lengthMax);
}

function inflateBounded(inflate: (lengthMax: number) => Uint8Array, lengthMax: number): Bytes {
  let plain: Uint8Array;
  try {
    plain = inflate(Math.max(1, lengthMax)); // zlib takes no limit of 0
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    throw new AppError("corruption", `Decompress to at most ${lengthMax} bytes: bad stream`, {
      cause,
    });
  }
  if (plain.length > lengthMax) {
    throw new AppError("corruption", `Decompress to at most ${lengthMax} bytes: too long`);
  }
  const { buffer } = plain;
  return buffer instanceof ArrayBuffer && buffer.byteLength === plain.length
    ? new Uint8Array(buffer)
    : new Uint8Array(plain);
}

const ZSTD_MAGIC = 0xfd2fb528;

/**
 * Length of the first frame, by walking its block headers (RFC 8878 3.1). The runtime's zstd needs the check: to an output
 * of 16 KiB or more it appends an empty second frame, and it returns what it has when a stream is cut, or ignores what
 * follows the first frame, both without an error. Throws `RangeError`.
 */
function zstdFrameBytes(data: Uint8Array): number {
  const view = viewOf(data);
  if (view.getUint32(0, true) !== ZSTD_MAGIC) throw new RangeError("no zstd magic number");
  const descriptor = view.getUint8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const windowBytes = isSingleSegment ? 0 : 1;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const contentSizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  let at = 5 + windowBytes + dictionaryBytes + contentSizeBytes;
  for (let isLast = false; !isLast;) {
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    isLast = (header & 1) !== 0;
    const isRepeated = ((header >> 1) & 3) === 1; // one byte stands for the whole block
    at += 3 + (isRepeated ? 1 : header >> 3);
  }
  if ((descriptor & 4) !== 0) at += 4; // checksum
  return at;
}
