/**
 * @module
 */

import assert from "node:assert/strict";
import { JsonReader } from "./json_reader.ts";

const SUBJECT = { what: "Read a thing", kind: "corruption" } as const;

function read(text: string, wideIntegers = false): JsonReader {
  return JsonReader.parse(text, { ...SUBJECT, wideIntegers });
}

Deno.test("JsonReader gives fields of the wanted type", () => {
  const json = read(
    '{"s":"x","i":-7,"o":{"a":"b"},"l":[{"n":1},{"n":2}],"t":["p","q"],"nil":null}',
  );
  assert.equal(json.string("s"), "x");
  assert.equal(json.integer("i"), -7);
  assert.equal(json.wideInteger("i"), -7n);
  assert.equal(json.object("o").string("a"), "b");
  assert.deepEqual(json.objects("l").map((item) => item.integer("n")), [1, 2]);
  assert.deepEqual(json.strings("t"), ["p", "q"]);
  assert.deepEqual(json.stringMap("o"), new Map([["a", "b"]]));
  assert.deepEqual([json.has("s"), json.has("nil"), json.has("none")], [true, false, false]);
});

Deno.test("JsonReader takes absent and null as absent: fallbacks and empty lists", () => {
  const json = read('{"nil":null}');
  for (const key of ["nil", "none"]) {
    assert.equal(json.string(key, "d"), "d");
    assert.equal(json.integer(key, 3), 3);
    assert.deepEqual(json.objects(key), []);
    assert.deepEqual(json.strings(key), []);
    assert.deepEqual(json.stringMap(key), new Map());
    assert.throws(() => json.string(key), { kind: "corruption" });
  }
});

Deno.test("JsonReader refuses every other type with its kind and subject", () => {
  const json = read('{"s":"x","f":1.5,"big":9007199254740993,"l":[1],"m":{"a":1}}');
  const wrong = [
    () => json.integer("s"),
    () => json.integer("f"),
    () => json.integer("big"),
    () => json.wideInteger("big"),
    () => json.string("f"),
    () => json.object("l"),
    () => json.objects("l"),
    () => json.strings("l"),
    () => json.strings("s"),
    () => json.objects("s"),
    () => json.stringMap("m"),
    () => json.object("__proto__"),
    () => read("[]"),
    () => read("null"),
    () => read("{"),
  ];
  for (const attempt of wrong) {
    assert.throws(attempt, { kind: "corruption", message: /^Read a thing/ }, attempt.toString());
  }
});

Deno.test("JsonReader keeps integers beyond 2^53 exact when asked to", () => {
  const json = read('{"big":18446744073709551615,"f":1e30,"small":5}', true);
  assert.equal(json.wideInteger("big"), 18446744073709551615n);
  assert.equal(json.wideInteger("small"), 5n);
  assert.throws(() => json.wideInteger("f"), { kind: "corruption" });
});
