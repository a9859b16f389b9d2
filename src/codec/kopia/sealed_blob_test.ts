import assert from "node:assert/strict";
import fc from "fast-check";
import { fromUtf8, utf8 } from "../../base/bytes.ts";
import { isKind } from "../../base/failure.ts";
import { contentCipher } from "./cipher.ts";
import { contentHasher } from "./hash.ts";
import { openBlob, sealBlob } from "./sealed_blob.ts";

const cipher = contentCipher("CHACHA20-POLY1305-HMAC-SHA256", utf8("master key"));
const NONCE = new Uint8Array(12);
const refused = (open: () => unknown) => assert.throws(open, (e) => isKind(e, "corruption"));

Deno.test("sealed blobs are named after their content and open under that name only", () => {
  for (const name of ["HMAC-SHA256", "HMAC-SHA256-128"]) {
    const hasher = contentHasher(name, utf8("secret"));
    const plain = utf8("index");
    for (
      const [prefix, suffix] of [["xn12_", "s0123-c1"], ["s", "s0123"], ["_log_", ""]] as const
    ) {
      const { id, bytes } = sealBlob({ prefix, suffix, plain, nonce: NONCE }, hasher, cipher);
      assert.equal(
        id,
        prefix + hasher.hash(plain).toHex() + (suffix === "" ? "" : `-${suffix}`),
      );
      assert.equal(fromUtf8(openBlob(id, bytes, cipher, hasher)), "index");
      const other = sealBlob({ prefix, suffix, plain: utf8("x"), nonce: NONCE }, hasher, cipher);
      refused(() => openBlob(other.id, bytes, cipher, hasher));
      refused(() => openBlob(id, bytes.with(15, 0), cipher, hasher));
      for (let end = 0; end < bytes.length; end++) {
        refused(() => openBlob(id, bytes.subarray(0, end), cipher, hasher));
      }
    }
  }
});

Deno.test("openBlob() checks the hash even when decryption succeeds", () => {
  const hasher = contentHasher("HMAC-SHA256", utf8("secret"));
  const blob = { prefix: "xn0_", suffix: "s1", plain: utf8("index"), nonce: NONCE };
  const { id, bytes } = sealBlob(blob, hasher, cipher);
  // The first half of the hash is no part of the IV.
  const renamed = "xn0_" + "00".repeat(16) + id.slice("xn0_".length + 32);
  refused(() => openBlob(renamed, bytes, cipher, hasher));
});

Deno.test("openBlob() gives only corruption for garbage", () => {
  const hasher = contentHasher("HMAC-SHA256-128", utf8("secret"));
  const id = fc.oneof(fc.string(), fc.constant(`xn0_${"0".repeat(32)}-s`));
  fc.assert(fc.property(id, fc.uint8Array(), (name, bytes) => {
    refused(() => openBlob(name, bytes, cipher, hasher));
  }));
});
