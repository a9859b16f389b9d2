import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { isKind } from "../base/failure.ts";
import { compareCodePoints, formatGoTime, goJson, parseGoTime, RawJson } from "./go_json.ts";
import { utf8 } from "../base/bytes.ts";

Deno.test("goJson() escapes what Go escapes and nothing else", () => {
  assert.equal(
    goJson({ a: "<&>\u2028\u2029", b: '"\\/\n\t\b\f\u0001\u007fé😀' }),
    '{"a":"\\u003c\\u0026\\u003e\\u2028\\u2029","b":"\\"\\\\/\\n\\t\\b\\f\\u0001\u007fé😀"}',
  );
});

Deno.test("goJson() keeps struct order, sorts maps by UTF-8 bytes and drops undefined", () => {
  const map = new Map([["10", 1], ["9", 2], ["\uffff", 3], ["😀", 4], ["", 5]]);
  assert.equal(
    goJson({ z: 1, a: undefined, m: map, big: 2n ** 63n, bytes: utf8("hi"), n: null }),
    '{"z":1,"m":{"":5,"10":1,"9":2,"\uffff":3,"😀":4},"big":9223372036854775808,"bytes":"aGk=","n":null}',
  );
});

Deno.test("goJson() writes raw JSON through and indents as MarshalIndent does", () => {
  assert.equal(goJson({ d: new RawJson('{"x":1e400}') }), '{"d":{"x":1e400}}');
  const value = { a: [1, { b: true }], c: {}, d: [] };
  assert.equal(goJson(value, 2), JSON.stringify(value, null, 2));
});

Deno.test("goJson() is read back by JSON.parse as the same value", () => {
  fc.assert(fc.property(fc.jsonValue(), (value) => {
    const text = goJson(value as Parameters<typeof goJson>[0]);
    assert.equal(JSON.stringify(JSON.parse(text)), JSON.stringify(value));
  }));
});

Deno.test("compareCodePoints() orders as the UTF-8 bytes do", () => {
  const text = fc.string({ unit: "grapheme", maxLength: 4 });
  fc.assert(fc.property(text, text, (a, b) => {
    assert.equal(
      Math.sign(compareCodePoints(a, b)),
      Math.sign(Buffer.compare(Buffer.from(a), Buffer.from(b))),
    );
  }));
});

Deno.test("formatGoTime() trims the fraction; parseGoTime() reads it back", () => {
  assert.equal(formatGoTime(0n), "1970-01-01T00:00:00Z");
  assert.equal(formatGoTime(1735787045123456780n), "2025-01-02T03:04:05.12345678Z");
  assert.equal(formatGoTime(-1n), "1969-12-31T23:59:59.999999999Z");
  assert.equal(formatGoTime(parseGoTime("0001-01-01T00:00:00Z")), "0001-01-01T00:00:00Z");
  assert.equal(parseGoTime("2025-01-02T05:04:05.5+02:00"), parseGoTime("2025-01-02T03:04:05.5Z"));
  assert.equal(parseGoTime("2025-01-02T01:04:05-02:00"), parseGoTime("2025-01-02T03:04:05Z"));
  const ns = fc.bigInt({ min: -62135596800n * 10n ** 9n, max: 253402300799n * 10n ** 9n });
  fc.assert(fc.property(ns, (value) => assert.equal(parseGoTime(formatGoTime(value)), value)));
});

Deno.test("parseGoTime() refuses what is no time", () => {
  for (
    const text of [
      "",
      "2025-02-30T00:00:00Z",
      "2025-01-01T24:00:00Z",
      "2025-01-01T00:00:60Z",
      "2025-01-01 00:00:00Z",
      "2025-01-01T00:00:00",
      "2025-01-01T00:00:00.Z",
      "2025-01-01T00:00:00+24:00",
      "12025-01-01T00:00:00Z",
    ]
  ) {
    assert.throws(() => parseGoTime(text), (e) => isKind(e, "protocol"), text);
  }
});
