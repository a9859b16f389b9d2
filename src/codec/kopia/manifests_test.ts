import assert from "node:assert/strict";
import { gunzipSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { fromUtf8, utf8 } from "../../base/bytes.ts";
import { isKind } from "../../base/failure.ts";
import { checkJson, decodeManifests, encodeManifests, type StoredManifest } from "./manifests.ts";

const LENGTH_MAX = 1 << 20;
const pack = (text: string) => new Uint8Array(gzipSync(utf8(text)));
const refused = (bytes: Uint8Array, lengthMax = LENGTH_MAX) =>
  assert.throws(
    () => decodeManifests(bytes, lengthMax),
    (e) => isKind(e, "corruption") || isKind(e, "protocol"),
  );

Deno.test("manifests are gzip'ed JSON as stock writes it", () => {
  const bytes = encodeManifests([
    {
      id: "0a",
      labels: { type: "snapshot", hostname: "<h>" },
      modifiedNs: 1_735_787_045_100_000_000n,
      deleted: false,
      data: utf8('{"x": 12345678901234567890}'),
    },
    { id: "0b", labels: {}, modifiedNs: 0n, deleted: true },
  ]);
  assert.equal(
    fromUtf8(gunzipSync(bytes)),
    '{"entries":[{"id":"0a","labels":{"hostname":"\\u003ch\\u003e","type":"snapshot"},' +
      '"modified":"2025-01-02T03:04:05.1Z","data":{"x": 12345678901234567890}},' +
      '{"id":"0b","labels":{},"modified":"1970-01-01T00:00:00Z","deleted":true}]}\n',
  );
});

Deno.test("manifests come back with the very bytes of their documents", () => {
  const manifest: fc.Arbitrary<StoredManifest> = fc.record({
    id: fc.string({ minLength: 1 }),
    labels: fc.dictionary(fc.string(), fc.string(), { noNullPrototype: true }),
    modifiedNs: fc.bigInt({ min: 0n, max: 4n * 10n ** 18n }),
    deleted: fc.boolean(),
    data: fc.jsonValue().filter((value) => value !== null)
      .map((value) => utf8(JSON.stringify(value, null, 1))),
  }, { requiredKeys: ["id", "labels", "modifiedNs", "deleted"], noNullPrototype: true });
  fc.assert(fc.property(fc.array(manifest), (manifests) => {
    assert.deepEqual(decodeManifests(encodeManifests(manifests), LENGTH_MAX), manifests);
  }));
});

Deno.test("null lists, labels and unknown fields of stock are taken", () => {
  assert.deepEqual(decodeManifests(pack('{"entries":null}'), LENGTH_MAX), []);
  const text =
    '{"version":1,"entries":[{"id":"a","labels":null,"modified":"1970-01-01T00:00:00Z",' +
    '"contentID":"k00"}]}';
  assert.deepEqual(decodeManifests(pack(text), LENGTH_MAX), [
    { id: "a", labels: {}, modifiedNs: 0n, deleted: false },
  ]);
});

Deno.test("encodeManifests() refuses a document that would spoil the whole content", () => {
  for (const data of [utf8("{"), utf8("1} , {"), Uint8Array.of(0x22, 0xff, 0x22), utf8("")]) {
    const manifest = { id: "a", labels: {}, modifiedNs: 0n, deleted: false, data };
    assert.throws(() => checkJson(data), (e) => isKind(e, "protocol"));
    assert.throws(() => encodeManifests([manifest]), (e) => isKind(e, "protocol"));
  }
});

Deno.test("decodeManifests() reports damage and bombs, never anything else", () => {
  const bytes = encodeManifests([
    { id: "a", labels: { type: "t" }, modifiedNs: 1n, deleted: false, data: utf8("{}") },
  ]);
  for (let end = 0; end < bytes.length; end++) refused(bytes.subarray(0, end));
  refused(pack(`{"entries":[${" ".repeat(LENGTH_MAX)}]}`));
  for (
    const text of [
      "",
      "[",
      '{"entries":{}}',
      '{"entries":[1]}',
      '{"entries":[{}]}',
      '{"entries":[{"id":"","modified":"1970-01-01T00:00:00Z"}]}',
      '{"entries":[{"id":"a","modified":"soon"}]}',
      '{"entries":[{"id":"a","modified":"1970-01-01T00:00:00Z","labels":{"a":1}}]}',
    ]
  ) refused(pack(text));
  fc.assert(fc.property(fc.uint8Array(), (garbage) => refused(garbage)));
  fc.assert(fc.property(fc.jsonValue(), (value) => {
    if (value === null || typeof value !== "object") return;
    refused(pack(JSON.stringify({ entries: [value] })));
  }));
});

Deno.test("a label called __proto__ is a label like any other", () => {
  const labels = Object.fromEntries([["type", "x"], ["__proto__", "y"]]);
  const entry = { id: "a", labels, modifiedNs: 0n, deleted: false, data: utf8("{}") };
  const [decoded] = decodeManifests(encodeManifests([entry]), 10_000);
  assert.deepEqual(
    Object.entries(decoded?.labels ?? {}).toSorted(),
    Object.entries(labels).toSorted(),
  );
});
