import assert from "node:assert/strict";

import fc from "fast-check";

import { concat, equalBytes } from "../../base/bytes.ts";
import { failureKind } from "../../base/failure.ts";
import { decodeWalFile, WalFileDecoder } from "./decoder.ts";
import { encodeWalFile, WalFileEncoder } from "./encoder.ts";
import { HEADER_BYTES, UNIT_WAL_BYTES_MAX } from "./format.ts";
import { decodeKeyFile, encodeKeyFile } from "./key_file.ts";

const KEY = new Uint8Array(32).fill(7);
const SALT = new Uint8Array(32).fill(9);
const NAME = "00000001000000000000000A";

function description(sizeBytes: number) {
  return { systemId: "18446744073709551615", name: NAME, sizeBytes };
}

/** A file of these units, and what it should decode to. */
function fileOf(units: readonly Uint8Array[], sizeBytes?: number) {
  const content = concat(units);
  const encoder = new WalFileEncoder({
    archiveKey: KEY,
    salt: SALT,
    description: description(sizeBytes ?? content.length),
  });
  const parts = [encoder.head];
  const ends = [0];
  for (const unit of units) {
    parts.push(encoder.unit(unit));
    ends.push(encoder.offset);
  }
  return { file: concat(parts), parts, content, ends };
}

/** Everything a decoder yields, and how it ended. */
function decodePieces(pieces: readonly Uint8Array[], key = KEY) {
  const decoder = new WalFileDecoder(key);
  const blocks: Uint8Array[] = [];
  let error: unknown;
  try {
    for (const piece of pieces) for (const block of decoder.push(piece)) blocks.push(block);
    decoder.finish();
  } catch (caught) {
    error = caught;
  }
  return { content: concat(blocks), error, decoder };
}

const UNITS = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 6 });

Deno.test("a WAL file decodes to its content however it is cut into pieces", () => {
  fc.assert(fc.property(UNITS, fc.array(fc.nat(400), { maxLength: 12 }), (units, cuts) => {
    const { file, content } = fileOf(units);
    const pieces: Uint8Array[] = [];
    let at = 0;
    for (const cut of cuts) pieces.push(file.subarray(at, at += cut));
    pieces.push(file.subarray(at));
    const result = decodePieces(pieces);
    assert.equal(result.error, undefined);
    assert.deepEqual(result.content, content);
    assert.deepEqual(result.decoder.description, description(content.length));
  }));
});

Deno.test("a WAL file cut anywhere gives a prefix that ends with a unit, and corruption", () => {
  fc.assert(fc.property(UNITS, fc.double({ min: 0, max: 1, noNaN: true }), (units, share) => {
    const { file, content, ends } = fileOf(units);
    const cut = Math.min(file.length - 1, Math.floor(share * file.length));
    const result = decodePieces([file.subarray(0, cut)]);
    assert.equal(failureKind(result.error), "corruption");
    assert.ok(ends.includes(result.content.length));
    assert.deepEqual(result.content, content.subarray(0, result.content.length));
  }));
});

Deno.test("any flipped bit of a WAL file is corruption and never yields wrong bytes", () => {
  const { file, content } = fileOf([
    new Uint8Array(40).fill(1),
    Uint8Array.from({ length: 50 }, (_, i) => i * i),
    new Uint8Array(3).fill(5),
  ]);
  for (let at = 0; at < file.length; at++) {
    for (const bit of [1, 128]) {
      const damaged = file.slice();
      damaged[at] = (damaged[at] ?? 0) ^ bit;
      const result = decodePieces([damaged]);
      assert.equal(failureKind(result.error), "corruption", `byte ${at}`);
      assert.deepEqual(result.content, content.subarray(0, result.content.length));
      assert.ok(result.content.length < content.length);
    }
  }
});

Deno.test("units cannot be dropped, repeated, exchanged or taken from another file", () => {
  const units = [1, 2, 3].map((value) => new Uint8Array(10).fill(value));
  const { parts } = fileOf(units);
  const [head, a, b, c] = parts;
  assert.ok(head && a && b && c);
  for (const wrong of [[head, b, c], [head, a, a, b, c], [head, b, a, c], [head, a, c]]) {
    assert.equal(failureKind(decodePieces(wrong).error), "corruption");
  }
  const other = new WalFileEncoder({
    archiveKey: KEY,
    salt: new Uint8Array(32).fill(1),
    description: description(30),
  });
  assert.equal(failureKind(decodePieces([other.head, a, b, c]).error), "corruption");
  assert.equal(failureKind(decodePieces([...parts, new Uint8Array(1)]).error), "corruption");
});

Deno.test("another archive key is corruption", () => {
  const { file } = fileOf([new Uint8Array(10)]);
  const result = decodePieces([file], new Uint8Array(32));
  assert.equal(failureKind(result.error), "corruption");
  assert.equal(result.content.length, 0);
});

Deno.test("garbage is corruption", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), fc.boolean(), (garbage, magic) => {
    const start = magic ? fileOf([]).file.subarray(0, HEADER_BYTES) : new Uint8Array(0);
    assert.equal(failureKind(decodePieces([start, garbage]).error), "corruption");
  }));
});

Deno.test("the largest incompressible unit keeps its bound and decodes", () => {
  const unit = new Uint8Array(UNIT_WAL_BYTES_MAX);
  for (let at = 0; at < unit.length; at += 65536) {
    crypto.getRandomValues(unit.subarray(at, at + 65536));
  }
  const { file } = fileOf([unit, unit.subarray(0, 1)]);
  const { content } = decodeWalFile(KEY, file);
  assert.ok(equalBytes(content.subarray(0, unit.length), unit));
  assert.equal(content.length, unit.length + 1);
});

Deno.test("the encoder refuses more content than described", () => {
  const encoder = new WalFileEncoder({ archiveKey: KEY, salt: SALT, description: description(2) });
  assert.throws(() => encoder.unit(new Uint8Array(3)));
});

Deno.test("a small file is encoded and decoded at once, the empty one too", () => {
  for (const size of [0, 1, 5000]) {
    const content = new Uint8Array(size).fill(65);
    const file = encodeWalFile(
      { archiveKey: KEY, salt: SALT, description: description(size) },
      content,
    );
    assert.deepEqual(decodeWalFile(KEY, file).content, content);
  }
});

Deno.test("the key file gives the key back for its password only", () => {
  const salt = new Uint8Array(8).fill(3);
  const text = encodeKeyFile(KEY, { password: "secret", salt });
  assert.deepEqual(decodeKeyFile(text, { password: "secret" }), KEY);
  assert.throws(() => decodeKeyFile(text, { password: "Secret" }), (error) => {
    assert.equal(failureKind(error), "permission");
    return true;
  });
  for (const other of ["", "x", "not base64!", text.slice(0, 60), "AAAA".repeat(32)]) {
    assert.throws(() => decodeKeyFile(other, { password: "secret" }), (error) => {
      assert.equal(failureKind(error), "corruption");
      return true;
    });
  }
});
