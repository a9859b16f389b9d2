import assert from "node:assert/strict";
import fc from "fast-check";
import { rawElements, rawMembers } from "./raw_json.ts";

Deno.test("rawMembers() keeps the text of each member, digits included", () => {
  const members = rawMembers(' { "a" : 12345678901234567890 , "b\\"}" : [1, {"c": "]"}],"e":{} } ');
  assert.deepEqual([...members ?? []], [
    ["a", "12345678901234567890"],
    ['b"}', '[1, {"c": "]"}]'],
    ["e", "{}"],
  ]);
  assert.deepEqual(rawMembers(" { } "), new Map());
  assert.equal(rawMembers("[]"), undefined);
  assert.equal(rawElements("{}"), undefined);
  assert.equal(rawElements('"["'), undefined);
});

Deno.test("rawMembers() and rawElements() agree with JSON.parse on any JSON", () => {
  fc.assert(fc.property(fc.jsonValue(), fc.constantFrom(0, 2), (value, indent) => {
    const text = JSON.stringify(value, null, indent);
    const elements = rawElements(text)?.map((part) => JSON.parse(part));
    assert.deepEqual(elements, Array.isArray(value) ? value : undefined);
    const members = rawMembers(text);
    if (members === undefined) return;
    const parsed = [...members].map(([key, part]) => [key, JSON.parse(part)]);
    assert.deepEqual(parsed, Object.entries(JSON.parse(text)));
  }));
});
