/**
 * Byte helpers: owned copies, exact text, views over the right part of the memory.
 *
 * @module
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { concat, equalBytes, fromUtf8, toHex, utf8, viewOf } from "./bytes.ts";
import { SILENT } from "./log.ts";

Deno.test("property: utf8() and fromUtf8() give any text back, a byte order mark included", () => {
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
    const wellFormed = text.toWellFormed();
    assert.equal(fromUtf8(utf8(text)), wellFormed);
  }));
  assert.equal(fromUtf8(utf8("\uFEFFname")), "\uFEFFname");
  assert.equal(fromUtf8(new Uint8Array([0x61, 0xff])), "a\uFFFD");
});

Deno.test("property: concat() holds all parts in order and shares no memory with them", () => {
  fc.assert(fc.property(fc.array(fc.uint8Array()), (parts) => {
    const whole = concat(parts);
    assert.deepEqual([...whole], parts.flatMap((part) => [...part]));
    whole.fill(1);
    assert.ok(parts.every((part) => part.length === 0 || part.buffer !== whole.buffer));
  }));
});

Deno.test("equalBytes() compares length and every byte", () => {
  assert.ok(equalBytes(new Uint8Array(0), new Uint8Array(0)));
  assert.ok(equalBytes(utf8("abc"), utf8("abc")));
  assert.ok(!equalBytes(utf8("abc"), utf8("abd")));
  assert.ok(!equalBytes(utf8("abc"), utf8("ab")));
});

Deno.test("toHex() is lower case, two digits a byte", () => {
  assert.equal(toHex(new Uint8Array([0, 10, 255])), "000aff");
});

Deno.test("viewOf() sees the part of the buffer that the array sees", () => {
  const part = new Uint8Array([9, 9, 1, 2, 9]).subarray(2, 4);
  const view = viewOf(part);
  assert.equal(view.byteLength, 2);
  assert.equal(view.getUint16(0), 0x0102);
  view.setUint8(1, 7);
  assert.deepEqual([...part], [1, 7]);
});

Deno.test("SILENT takes everything, children included, and says nothing", () => {
  const child = SILENT.with({ component: "x" });
  for (const level of ["error", "warn", "info", "debug"] as const) child[level]("x", { n: 1n });
  assert.equal(child, SILENT);
});
