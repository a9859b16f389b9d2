import assert from "node:assert/strict";
import fc from "fast-check";
import { fromUtf8, utf8 } from "../../base/bytes.ts";
import { AppError, isKind } from "../../base/failure.ts";
import {
  decodeBlobConfig,
  decodeFormatBlob,
  DEFAULT_EPOCHS,
  encodeBlobConfig,
  encodeFormatBlob,
  readFormatDocument,
  type RepositoryFormat,
} from "./format.ts";
import { KEY_ALGO_SCRYPT } from "./kdf.ts";

const FORMAT: RepositoryFormat = {
  uniqueId: new Uint8Array(32).fill(1),
  hash: "HMAC-SHA256-128",
  encryption: "CHACHA20-POLY1305-HMAC-SHA256",
  splitter: "FIXED-128K",
  hmacSecret: new Uint8Array(32).fill(2),
  masterKey: new Uint8Array(32).fill(3),
  version: 3,
  maxPackSizeBytes: 20 << 20,
  indexVersion: 2,
  epochs: DEFAULT_EPOCHS,
};
const SEAL = { password: "pä<ss>", nonce: new Uint8Array(12).fill(4), keyAlgo: KEY_ALGO_SCRYPT };

Deno.test("the format blob opens with its password only and gives the same format", () => {
  const bytes = encodeFormatBlob(FORMAT, SEAL);
  assert.match(fromUtf8(bytes), /^\{\n {2}"tool": .*\n(.|\n)*\n\}\n$/);
  assert.deepEqual(decodeFormatBlob(bytes, SEAL.password), FORMAT);
  assert.throws(() => decodeFormatBlob(bytes, "other"), (e) => isKind(e, "permission"));
});

Deno.test("kopia.blobcfg opens with what the format blob says in clear", () => {
  const formatBlob = encodeFormatBlob(FORMAT, SEAL);
  const config = { retentionMode: "GOVERNANCE", retentionPeriodMs: 86_400_000 };
  const bytes = encodeBlobConfig(config, FORMAT.uniqueId, SEAL);
  assert.deepEqual(decodeBlobConfig(bytes, SEAL.password, formatBlob), config);
  assert.throws(
    () => decodeBlobConfig(bytes.with(20, 0), SEAL.password, formatBlob),
    (e) => isKind(e, "permission"),
  );
});

const SECRET = new Uint8Array(32).toBase64();
const DOCUMENT = {
  hash: "HMAC-SHA256",
  secret: SECRET,
  masterKey: SECRET,
  version: 3,
  indexVersion: 2,
  epochParameters: { Enabled: true },
};
const read = (format: unknown) => readFormatDocument({ format }, FORMAT.uniqueId);

Deno.test("readFormatDocument() takes version 2 and 3 and fills in the legacy splitter", () => {
  assert.equal(read(DOCUMENT).splitter, "FIXED");
  assert.equal(read({ ...DOCUMENT, version: 2 }).version, 2);
  const feature = { feature: "new", ifNotUnderstood: { warn: true } };
  assert.equal(read({ ...DOCUMENT, requiredFeatures: [feature], upgradeLock: null }).version, 3);
});

Deno.test("readFormatDocument() refuses what it does not understand and names it", () => {
  const cases: ReadonlyArray<readonly [Record<string, unknown>, RegExp]> = [
    [{ version: 1 }, /version is 1/],
    [{ version: 4 }, /version is 4/],
    [{ indexVersion: 1 }, /index version is 1/],
    [{ ecc: "REED-SOLOMON-CRC32", eccOverheadPercent: 2 }, /error correction/],
    [{ upgradeLock: { ownerID: "x" } }, /upgrade/],
    [{ requiredFeatures: [{ feature: "shiny" }] }, /"shiny"/],
    [{ epochParameters: undefined }, /epoch manager is off/],
  ];
  for (const [change, message] of cases) {
    assert.throws(
      () => read({ ...DOCUMENT, ...change }),
      (e) => e instanceof AppError && e.kind === "config" && message.test(e.message),
    );
  }
});

Deno.test("the format decoders give only corruption or config for garbage", () => {
  const expected = (e: unknown) => isKind(e, "corruption") || isKind(e, "config");
  for (const field of ["secret", "masterKey"]) {
    assert.throws(() => read({ ...DOCUMENT, [field]: "!" }), (e) => isKind(e, "corruption"));
  }
  fc.assert(fc.property(fc.jsonValue(), (value) => {
    assert.throws(() => readFormatDocument(value, FORMAT.uniqueId), expected);
    assert.throws(() => decodeFormatBlob(utf8(JSON.stringify(value)), "p"), expected);
  }));
  fc.assert(fc.property(fc.uint8Array(), (bytes) => {
    assert.throws(() => decodeFormatBlob(bytes, "p"), expected);
  }));
  const foreign = { uniqueID: SECRET, keyAlgo: "x", encryption: "y", encryptedBlockFormat: "" };
  for (const envelope of [foreign, { ...foreign, encryption: "AES256_GCM" }]) {
    assert.throws(
      () => decodeFormatBlob(utf8(JSON.stringify(envelope)), "p"),
      (e) => isKind(e, "config"),
    );
  }
});
