import assert from "node:assert/strict";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";

import { concat } from "../../base/bytes.ts";
import { failureKind } from "../../base/failure.ts";
import { UNIT_WAL_BYTES_MAX } from "./format.ts";
import { compressUnit, decompressUnit } from "./unit_frame.ts";

function assertRefused(frame: Uint8Array, sizeBytes: number): void {
  assert.throws(
    () => decompressUnit(frame, sizeBytes),
    (error) => failureKind(error) === "corruption",
  );
}

const CONTENT = new Uint8Array(5000).map((_, index) => index % 7 + index % 11);

Deno.test("decompressUnit() gives back what compressUnit() took", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 3000 }), fc.nat(500), (bytes, times) => {
      const content = concat(Array.from({ length: 1 + times }, () => bytes))
        .subarray(0, UNIT_WAL_BYTES_MAX);
      assert.deepEqual(decompressUnit(compressUnit(content), content.length), content);
    }),
    { numRuns: 50 },
  );
  for (const sizeBytes of [1, 255, 256, 65_792, UNIT_WAL_BYTES_MAX]) {
    const noise = crypto.getRandomValues(new Uint8Array(Math.min(sizeBytes, 65_536)));
    const content = concat(Array.from({ length: 16 }, () => noise)).subarray(0, sizeBytes);
    assert.deepEqual(decompressUnit(compressUnit(content), content.length), content);
  }
});

Deno.test("decompressUnit() refuses another length than it was told", () => {
  assertRefused(compressUnit(CONTENT), CONTENT.length - 1);
  assertRefused(compressUnit(CONTENT), CONTENT.length + 1);
  assertRefused(compressUnit(new Uint8Array(UNIT_WAL_BYTES_MAX)), 10);
});

Deno.test("decompressUnit() refuses what the file format does not promise: no checksum, more than one frame", () => {
  assertRefused(zstdCompressSync(CONTENT), CONTENT.length);
  const frame = compressUnit(CONTENT);
  const skippable = Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0);
  assertRefused(concat([frame, skippable]), CONTENT.length);
  assertRefused(concat([skippable, frame]), CONTENT.length);
  assertRefused(concat([frame, frame]), CONTENT.length);
  assertRefused(concat([frame, frame]), 2 * CONTENT.length);
});

Deno.test("decompressUnit() answers every damage with corruption", () => {
  const frame = compressUnit(CONTENT);
  for (let offset = 0; offset < frame.length; offset++) {
    assertRefused(frame.subarray(0, offset), CONTENT.length);
    const damaged = frame.slice();
    damaged[offset] = (damaged[offset] ?? 0) ^ 0x55;
    try {
      assert.deepEqual(decompressUnit(damaged, CONTENT.length), CONTENT, "damage changes nothing");
    } catch (error) {
      assert.equal(failureKind(error), "corruption");
    }
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      assertRefused(bytes, CONTENT.length);
    }),
  );
});
