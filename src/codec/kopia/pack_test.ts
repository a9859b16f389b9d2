import assert from "node:assert/strict";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { concat, utf8, viewOf } from "../../base/bytes.ts";
import { isKind } from "../../base/failure.ts";
import { contentCipher } from "./cipher.ts";
import { contentHasher } from "./hash.ts";
import {
  decodePostamble,
  encodePostamble,
  newSessionId,
  openLocalIndex,
  packName,
  paddingBytes,
  POSTAMBLE_BYTES_MAX,
  sealLocalIndex,
} from "./pack.ts";

const postamble = fc.record({
  iv: fc.uint8Array({ maxLength: 32 }),
  indexOffset: fc.nat({ max: 2 ** 31 - 1 }),
  indexLength: fc.nat({ max: 2 ** 31 - 1 }),
});
const refused = (tail: Uint8Array) =>
  assert.throws(() => decodePostamble(tail), (e) => isKind(e, "corruption"));

Deno.test("a postamble is found at the end of whatever precedes it", () => {
  fc.assert(fc.property(postamble, fc.uint8Array(), (value, before) => {
    const bytes = encodePostamble(value);
    assert.ok(bytes.length <= POSTAMBLE_BYTES_MAX);
    const read = decodePostamble(concat([before, bytes]));
    assert.equal(read.iv.toHex(), value.iv.toHex());
    assert.equal(read.indexOffset, value.indexOffset);
    assert.equal(read.indexLength, value.indexLength);
  }));
});

Deno.test("a postamble has the layout of the format", () => {
  const bytes = encodePostamble({ iv: utf8("iv"), indexOffset: 300, indexLength: 5 });
  assert.equal(bytes.toHex(), "01026976ac0205" + "3e9badb4" + "0b");
});

Deno.test("a postamble that is cut or changed anywhere is corruption", () => {
  const bytes = encodePostamble({
    iv: new Uint8Array(16).fill(7),
    indexOffset: 123456,
    indexLength: 789,
  });
  for (let i = 0; i < bytes.length; i++) {
    refused(bytes.subarray(0, i));
    refused(bytes.subarray(i + 1));
    refused(bytes.with(i, (bytes[i] ?? 0) ^ 1));
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), refused));
});

Deno.test("a postamble with a right checksum is still read with care", () => {
  const seal = (body: Uint8Array) => {
    const sealed = concat([body, new Uint8Array(4), Uint8Array.of(body.length + 4)]);
    viewOf(sealed).setUint32(body.length, crc32(body));
    return sealed;
  };
  assert.equal(decodePostamble(seal(Uint8Array.of(1, 0, 5, 6))).indexLength, 6);
  const bodies = [
    [2, 0, 5, 6],
    [1, 9, 5, 6],
    [1, 0, 5, 6, 7],
    [1, 0, 5],
    [1, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 6],
  ];
  for (const body of bodies) refused(seal(Uint8Array.from(body)));
  fc.assert(fc.property(fc.uint8Array({ maxLength: 250 }), (body) => {
    try {
      decodePostamble(seal(body));
    } catch (error) {
      assert.ok(isKind(error, "corruption"), String(error));
    }
  }));
});

Deno.test("the local index is sealed under its full hash and checked against it", () => {
  const image = utf8("image");
  const random = { random32: new Uint8Array(32).fill(5), nonce: new Uint8Array(12) };
  for (const name of ["HMAC-SHA256", "HMAC-SHA256-128"]) {
    const hasher = contentHasher(name, utf8("secret"));
    const cipher = contentCipher("CHACHA20-POLY1305-HMAC-SHA256", utf8("master"));
    const sealed = sealLocalIndex(image, random, hasher, cipher);
    assert.equal(sealed.iv.length, hasher.sizeBytes);
    const opened = openLocalIndex(sealed, hasher, cipher);
    assert.equal(opened.toHex(), concat([image, random.random32]).toHex());
    const other = contentHasher(name, utf8("other"));
    assert.throws(() => openLocalIndex(sealed, other, cipher), (e) => isKind(e, "corruption"));
  }
});

Deno.test("names and padding follow the format", () => {
  const session = newSessionId(new Uint8Array(8).fill(0xab), Date.UTC(2026, 10, 23));
  assert.equal(session, "sabababababababab147");
  assert.equal(newSessionId(new Uint8Array(8), 0), "s00000000000000000");
  assert.equal(packName("q", new Uint8Array(16), session), `q${"00".repeat(16)}-${session}`);
  assert.deepEqual([0, 1, 4095, 4096, 4097].map(paddingBytes), [4096, 4095, 1, 4096, 4095]);
});
