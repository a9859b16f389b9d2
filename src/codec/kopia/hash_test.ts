import assert from "node:assert/strict";
import { utf8 } from "../../base/bytes.ts";
import { isKind } from "../../base/failure.ts";
import { contentHasher } from "./hash.ts";

Deno.test("contentHasher() gives the published digests, truncated for -128", () => {
  const fox = utf8("The quick brown fox jumps over the lazy dog");
  const digest = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8";
  assert.equal(contentHasher("HMAC-SHA256", utf8("key")).hash(fox).toHex(), digest);
  const short = contentHasher("HMAC-SHA256-128", utf8("key"));
  assert.equal(short.hash(fox).toHex(), digest.slice(0, 32));
  assert.equal(short.hash(fox).buffer.byteLength, short.sizeBytes);
  assert.equal(
    contentHasher("HMAC-SHA256", utf8("a-repository-testing-hmac-secret")).hash(new Uint8Array())
      .toHex(),
    "0c2d44dc80de21b71d4219623082f5dc253fe9bb54e48b0fc90e118f8e6cf419",
  );
});

Deno.test("contentHasher() refuses a hash it does not have", () => {
  assert.throws(() => contentHasher("BLAKE3-256", utf8("key")), (e) => isKind(e, "config"));
});
