import assert from "node:assert/strict";
import { isKind } from "../../base/failure.ts";
import { deriveKey, formatEncryptionKey, KEY_ALGO_PBKDF2, KEY_ALGO_SCRYPT } from "./kdf.ts";
import { utf8 } from "../../base/bytes.ts";

Deno.test("deriveKey() gives upstream's HKDF vector", () => {
  const key = deriveKey({
    key: utf8("ABCDEFGHIJKLMNOP"),
    salt: "0123456789012345",
    info: "the-test-purpose",
    sizeBytes: 32,
  });
  assert.equal(key.toHex(), "828769ee8969bc37f11dbaa32838f8db6c19daa6e3ae5f5eed2da2d94d8faddb");
});

Deno.test("formatEncryptionKey() knows the two algorithms and refuses others", () => {
  const salt = new Uint8Array(32);
  const keys = [KEY_ALGO_SCRYPT, KEY_ALGO_PBKDF2].map((a) => formatEncryptionKey(a, "pw", salt));
  assert.deepEqual(keys.map((key) => key.length), [32, 32]);
  assert.notEqual(keys[0]?.toHex(), keys[1]?.toHex());
  assert.throws(() => formatEncryptionKey("md5", "pw", salt), (e) => isKind(e, "config"));
});
