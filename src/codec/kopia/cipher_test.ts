import assert from "node:assert/strict";
import fc from "fast-check";
import { fromUtf8, utf8 } from "../../base/bytes.ts";
import { isKind } from "../../base/failure.ts";
import { contentCipher } from "./cipher.ts";

const MASTER_KEY = utf8("01234567890123456789012345678901");
const NAMES = ["AES256-GCM-HMAC-SHA256", "CHACHA20-POLY1305-HMAC-SHA256"];

// Published by upstream's tests; there the whole 32-byte id is the IV.
const VECTORS = [
  [
    "AES256-GCM-HMAC-SHA256",
    "e43ba07f85a6d70c5f1102ca06cf19c597e5f91e527b21f00fb76e8bec3fd1",
  ],
  [
    "CHACHA20-POLY1305-HMAC-SHA256",
    "118359f3d4d589d939efbbc3168ae4c77c51bcebce6845fe6ef5d11342faa6",
  ],
] as const;

Deno.test("contentCipher() opens and makes the published ciphertexts", () => {
  for (const [name, hex] of VECTORS) {
    const cipher = contentCipher(name, MASTER_KEY);
    const sealed = Uint8Array.fromHex(hex);
    const iv = utf8("aabbccddeeffgghhiijjkkllmmnnoopp");
    assert.equal(fromUtf8(cipher.open(sealed, iv)), "foo");
    assert.equal(cipher.seal(utf8("foo"), iv, sealed.subarray(0, 12)).toHex(), hex);
  }
});

Deno.test("contentCipher() derives the IV from the last 16 bytes of the hash", () => {
  for (const name of NAMES) {
    const cipher = contentCipher(name, MASTER_KEY);
    const hash = Uint8Array.from({ length: 32 }, (_, i) => i);
    const sealed = cipher.encrypt(utf8("payload"), hash, new Uint8Array(12));
    assert.equal(sealed.length, 7 + cipher.overheadBytes);
    assert.equal(fromUtf8(cipher.open(sealed, hash.slice(16))), "payload");
  }
});

Deno.test("contentCipher() gives back owned bytes that share no buffer", () => {
  for (const name of NAMES) {
    const cipher = contentCipher(name, MASTER_KEY);
    const hash = new Uint8Array(16);
    for (const size of [0, 1, 1000, 131_072]) {
      const sealed = cipher.encrypt(new Uint8Array(size), hash, new Uint8Array(12));
      const plain = cipher.decrypt(sealed, hash);
      assert.equal(plain.length, size);
      assert.equal(plain.buffer.byteLength, size);
      assert.equal(Object.getPrototypeOf(plain), Uint8Array.prototype);
    }
  }
});

Deno.test("contentCipher() reports every changed, cut or renamed message as corruption", () => {
  for (const name of NAMES) {
    const cipher = contentCipher(name, MASTER_KEY);
    const hash = new Uint8Array(16).fill(7);
    const sealed = cipher.encrypt(utf8("payload"), hash, new Uint8Array(12).fill(1));
    const refused = (bytes: Uint8Array, id: Uint8Array) =>
      assert.throws(() => cipher.decrypt(bytes, id), (e) => isKind(e, "corruption"));
    for (let i = 0; i < sealed.length; i++) {
      refused(sealed.subarray(0, i), hash);
      refused(sealed.with(i, (sealed[i] ?? 0) ^ 1), hash);
    }
    refused(sealed, hash.with(3, 8));
    fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), (garbage) => refused(garbage, hash)));
  }
});

Deno.test("contentCipher() refuses unknown names and short hashes", () => {
  assert.throws(() => contentCipher("NONE", MASTER_KEY), (e) => isKind(e, "config"));
  assert.throws(() => contentCipher("toString", MASTER_KEY), (e) => isKind(e, "config"));
  const cipher = contentCipher(NAMES[1] ?? "", MASTER_KEY);
  assert.throws(
    () => cipher.decrypt(new Uint8Array(40), new Uint8Array(8)),
    (e) => isKind(e, "protocol"),
  );
});
