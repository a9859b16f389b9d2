import assert from "node:assert/strict";
import { constants, gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { type Bytes, concat, equalBytes } from "../../base/bytes.ts";
import { isKind } from "../../base/failure.ts";
import { compress, COMPRESSION_ZSTD_FASTEST, decompress, gunzipBounded } from "./compression.ts";

const IDS = [0x1000, 0x1100, COMPRESSION_ZSTD_FASTEST, 0x1102, 0x1103, 0x1302, 0x1500];

function compressible(sizeBytes: number): Bytes {
  return Uint8Array.from({ length: sizeBytes }, (_, i) => (i * i) % 61);
}

function mustCompress(id: number, data: Uint8Array): Bytes {
  const packed = compress(id, data);
  assert.ok(packed !== undefined);
  return packed;
}

Deno.test("compress() and decompress() are inverse for every codec we have", () => {
  for (const id of IDS) {
    const samples = [300, 5000, 300_000].map(compressible);
    for (const data of [...samples, new Uint8Array(300_000)]) {
      const packed = mustCompress(id, data);
      assert.deepEqual([...packed.subarray(0, 4)], [0, 0, id >> 8, id & 255]);
      const plain = decompress(packed, data.length);
      assert.ok(equalBytes(plain, data));
      assert.equal(plain.buffer.byteLength, data.length);
    }
  }
});

Deno.test("compress() gives one zstd frame around the runtime's buffer size of 16 KiB", () => {
  let state = 1;
  const nibbles = Uint8Array.from({ length: 300_000 }, () => {
    state = Math.imul(state, 1_103_515_245) + 12_345;
    return (state >>> 16) & 15;
  });
  for (const size of [20_000, 31_000, 32_000, 32_700, 33_000, 60_000, 131_072, 300_000]) {
    const data = nibbles.subarray(0, size);
    const packed = mustCompress(COMPRESSION_ZSTD_FASTEST, data);
    assert.ok(equalBytes(decompress(packed, size), data), `${size} bytes`);
  }
});

Deno.test("compress() gives undefined when nothing is won", () => {
  const random = new Uint8Array(4096);
  crypto.getRandomValues(random);
  for (const data of [new Uint8Array(0), new Uint8Array(4), random]) {
    assert.equal(compress(COMPRESSION_ZSTD_FASTEST, data), undefined);
  }
});

Deno.test("decompress() stops at its bound: a small bomb costs no memory", () => {
  const bomb = new Uint8Array(64 << 20);
  for (const id of [0x1000, COMPRESSION_ZSTD_FASTEST, 0x1500]) {
    const packed = mustCompress(id, bomb);
    for (const lengthMax of [0, 1, 1000]) {
      assert.throws(() => decompress(packed, lengthMax), (e) => isKind(e, "corruption"));
    }
  }
  assert.throws(
    () => gunzipBounded(gzipSync(Uint8Array.of(1)), 0),
    (e) => isKind(e, "corruption"),
  );
  assert.throws(
    () => gunzipBounded(mustCompress(0x1000, bomb).subarray(4), 1000),
    (e) => isKind(e, "corruption"),
  );
});

Deno.test("decompress() reports every cut of a stream as corruption", () => {
  const data = compressible(2000);
  const checksummed = zstdCompressSync(data, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
  const streams = [
    ...[0x1000, 0x1101, 0x1500].map((id) => mustCompress(id, data)),
    concat([Uint8Array.of(0, 0, 0x11, 0), checksummed]),
  ];
  for (const packed of streams) {
    assert.ok(equalBytes(decompress(packed, data.length), data));
    for (let end = 0; end < packed.length; end++) {
      assert.throws(
        () => decompress(packed.subarray(0, end), data.length),
        (e) => isKind(e, "corruption"),
        `cut at ${end} of ${packed.length}`,
      );
    }
  }
});

Deno.test("decompress() refuses whatever follows a zstd frame", () => {
  const packed = mustCompress(COMPRESSION_ZSTD_FASTEST, compressible(2000));
  for (const rest of [Uint8Array.of(1), packed.subarray(4)]) {
    assert.throws(() => decompress(concat([packed, rest]), 10_000), (e) => isKind(e, "corruption"));
  }
});

Deno.test("decompress() gives only corruption or config for garbage", () => {
  const expected = (e: unknown) => isKind(e, "corruption") || isKind(e, "config");
  assert.throws(() => decompress(Uint8Array.of(0, 0, 0x12, 0, 1), 9), (e) => isKind(e, "config"));
  const header = fc.constantFrom(...IDS).map((id) => [0, 0, id >> 8, id & 255]);
  const magic = fc.constantFrom([], [0x28, 0xb5, 0x2f, 0xfd], [0x1f, 0x8b, 8, 0]);
  fc.assert(fc.property(header, magic, fc.uint8Array(), (id, start, rest) => {
    try {
      const plain = decompress(Uint8Array.from([...id, ...start, ...rest]), 1000);
      assert.ok(plain.length <= 1000);
    } catch (error) {
      assert.ok(expected(error), String(error));
    }
  }));
});
