import assert from "node:assert/strict";
import fc from "fast-check";
import { isKind } from "../../base/failure.ts";
import { contentId, contentIdKey, contentIdOfKey, parseContentId } from "./content_id.ts";

const prefix = fc.constantFrom("", "g", "k", "m", "x", "z");
const hash = fc.uint8Array({ minLength: 1, maxLength: 32 });

Deno.test("content ids survive the way to text, to a key and back", () => {
  fc.assert(fc.property(prefix, hash, (letter, bytes) => {
    const id = contentId(letter, bytes);
    assert.equal(parseContentId(id).prefix, letter);
    assert.equal(parseContentId(id).hash.toHex(), bytes.toHex());
    assert.equal(contentIdOfKey(contentIdKey(id)), id);
  }));
});

Deno.test("content ids of one length sort as their keys do", () => {
  const same = fc.uint8Array({ minLength: 2, maxLength: 2 });
  const id = fc.tuple(prefix, same).map(([letter, bytes]) => contentId(letter, bytes));
  fc.assert(fc.property(id, id, (a, b) => {
    assert.equal(a < b, contentIdKey(a).toHex() < contentIdKey(b).toHex());
  }));
});

Deno.test("parseContentId() refuses what is no content id", () => {
  for (
    const id of ["", "k", "abc", "a1b", "f", "kAA", "Ix00", "xx00", "k0g", "00 ", "0".repeat(66)]
  ) {
    assert.throws(() => parseContentId(id), (e) => isKind(e, "protocol"), id);
  }
});

Deno.test("contentIdOfKey() refuses malformed keys", () => {
  for (const key of [[], [0], [1, 2], [0x61, 2], new Array(34).fill(0)]) {
    assert.throws(() => contentIdOfKey(Uint8Array.from(key)), (e) => isKind(e, "corruption"));
  }
});
