import assert from "node:assert/strict";
import type { Bytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { decode } from "./decode.ts";
import { encode } from "./encode.ts";
import { message, type MessageTable, nested, repeated, scalar, stringMap } from "./schema.ts";

const Leaf = message("Leaf", {
  text: scalar(1, "string"),
  data: scalar(2, "bytes"),
  big: scalar(3, "uint64"),
  exact: scalar(4, "uint64_number"),
  signed: scalar(5, "int64_number"),
  position: scalar(6, "fixed64"),
  small: scalar(7, "int32"),
  flag: scalar(8, "bool"),
});
const Tree = message("Tree", {
  leaf: nested(1, Leaf),
  leaves: repeated(nested(2, Leaf)),
  labels: stringMap(3),
});

function assertRefused(table: MessageTable, bytes: readonly number[], message: RegExp): void {
  assert.throws(() => decode(table, Uint8Array.from(bytes)), (error) => {
    assert.ok(error instanceof AppError);
    assert.equal(error.kind, "protocol");
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("decode() hands out views, encode() owns its bytes", () => {
  const encoded = encode(Leaf, { data: Uint8Array.of(1, 2, 3) });
  const { data } = decode(Leaf, encoded);
  assert.equal(data.buffer, encoded.buffer);
  assert.deepEqual([...encoded], [0x12, 3, 1, 2, 3]);
});

Deno.test("decode() works on a view into a larger buffer", () => {
  const whole = Uint8Array.of(9, 9, ...encode(Leaf, { position: 0x0102030405060708n }), 9);
  assert.equal(decode(Leaf, whole.subarray(2, 11)).position, 0x0102030405060708n);
});

Deno.test("encode() leaves defaults out and decode() puts them in", () => {
  assert.equal(encode(Leaf, { text: "", big: 0n, flag: false, small: 0 }).length, 0);
  const empty = decode(Tree, new Uint8Array(0));
  assert.deepEqual(empty, { leaf: undefined, leaves: [], labels: {} });
});

Deno.test("64-bit values are exact at their ends", () => {
  const big = (1n << 64n) - 1n;
  const exact = Number.MAX_SAFE_INTEGER;
  for (const signed of [-exact, -1, exact]) {
    const value = decode(Leaf, encode(Leaf, { big, exact, signed, position: big, small: -1 }));
    assert.deepEqual([value.big, value.exact, value.signed], [big, exact, signed]);
    assert.deepEqual([value.position, value.small], [big, -1]);
  }
});

Deno.test("decode() refuses a number beyond 2^53 where a number is promised", () => {
  const bytes = encode(Leaf, { big: 1n << 53n });
  bytes[0] = 4 << 3;
  assertRefused(Leaf, [...bytes], /exceeds 2\^53/);
  bytes[0] = 5 << 3;
  assertRefused(Leaf, [...bytes], /exceeds 2\^53/);
});

Deno.test("decode() skips unknown fields of every wire type", () => {
  const unknown = [
    ...[0x78, 0xff, 0x01], // 15: varint
    ...[0x79, 1, 2, 3, 4, 5, 6, 7, 8], // 15: fixed64
    ...[0x7a, 2, 0, 0], // 15: delimited
    ...[0x7d, 1, 2, 3, 4], // 15: fixed32
  ];
  const value = decode(Leaf, Uint8Array.from([...unknown, 0x0a, 1, 0x41, ...unknown]));
  assert.equal(value.text, "A");
});

Deno.test("decode() refuses what is broken", () => {
  assertRefused(Leaf, [0x0a, 5, 1, 2], /length exceeds/);
  assertRefused(Leaf, [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], /length exceeds/);
  assertRefused(Leaf, [0x0a], /truncated/);
  assertRefused(Leaf, [0x31, 1, 2], /truncated/);
  assertRefused(Leaf, [0x0a, 1, 0xff], /not UTF-8/);
  assertRefused(Leaf, [0x08, 1], /wire type 0, wanted 2/);
  assertRefused(Leaf, [0x00, 1], /wrong field number/);
  assertRefused(Leaf, [0x7b], /wire type 3/);
  assertRefused(Leaf, new Array(11).fill(0x80), /longer than 10/);
  assertRefused(Tree, [0x0a, 2, 0x0a, 5, 1, 1, 1, 1, 1], /length exceeds/);
});

Deno.test("decode() refuses nesting without end", () => {
  interface Recursive extends MessageTable {
    readonly name: "Recursive";
  }
  const fields: Record<string, ReturnType<typeof nested>> = {};
  const recursive: Recursive = { name: "Recursive", fields };
  fields["inner"] = nested(1, recursive);
  let bytes: Bytes = new Uint8Array(0);
  for (let depth = 0; depth < 20; depth++) {
    bytes = Uint8Array.of(0x0a, bytes.length, ...bytes);
  }
  assertRefused(recursive, [...bytes], /nested too deep/);
});

Deno.test("a map key may be __proto__", () => {
  const labels = Object.fromEntries([["__proto__", "x"], ["a", "b"]]);
  const value = decode(Tree, encode(Tree, { labels }));
  assert.deepEqual(Object.entries(value.labels), [["__proto__", "x"], ["a", "b"]]);
});
