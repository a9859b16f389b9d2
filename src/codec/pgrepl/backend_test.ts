import assert from "node:assert/strict";
import fc from "fast-check";
import { AppError, isKind } from "../../base/failure.ts";
import { type Bytes, concat, utf8, viewOf } from "../../base/bytes.ts";
import { lsn, lsnAdd } from "../../domain/lsn.ts";
import {
  type BackendMessage,
  BackendParser,
  DATA_BYTES_MAX,
  MESSAGE_BYTES_MAX,
} from "./backend.ts";

function frame(type: string, ...parts: Uint8Array[]): Bytes {
  const body = concat(parts);
  const head = new Uint8Array(5);
  head[0] = type.charCodeAt(0);
  viewOf(head).setUint32(1, body.length + 4);
  return concat([head, body]);
}

function u64(...values: bigint[]): Bytes {
  const bytes = new Uint8Array(8 * values.length);
  values.forEach((value, i) => viewOf(bytes).setBigUint64(8 * i, value));
  return bytes;
}

const xlogData = (start: bigint, bytes: Uint8Array) =>
  frame("d", utf8("w"), u64(start, start + 1000n, 7n), bytes);
const keepalive = (walEnd: bigint, reply: number) =>
  frame("d", utf8("k"), u64(walEnd, 7n), Uint8Array.of(reply));

/** Pieces of one payload joined again, so that results do not depend on where the chunks were cut. */
function joined(messages: readonly BackendMessage[]): BackendMessage[] {
  const result: BackendMessage[] = [];
  for (const message of messages) {
    const last = result.at(-1);
    if (
      message.kind === "data" && last?.kind === "data" && last.walEnd === message.walEnd &&
      lsnAdd(last.start, last.bytes.length) === message.start
    ) {
      result[result.length - 1] = { ...last, bytes: concat([last.bytes, message.bytes]) };
    } else {result.push(
        message.kind === "data" ? { ...message, bytes: concat([message.bytes]) } : message,
      );}
  }
  return result;
}

function parse(stream: Uint8Array, cuts: readonly number[]): BackendMessage[] {
  const parser = new BackendParser();
  const at = [0, ...cuts.map((c) => c % stream.length).sort((a, b) => a - b), stream.length];
  return joined(at.slice(1).flatMap((end, i) => parser.push(stream.slice(at[i], end))));
}

const column = (text: string) => {
  const bytes = utf8(text);
  const size = new Uint8Array(4);
  viewOf(size).setUint32(0, bytes.length);
  return concat([size, bytes]);
};
const NULL = Uint8Array.of(255, 255, 255, 255);
const PAYLOAD = Uint8Array.from({ length: 700 }, (_, i) => i % 251);
const STREAM = concat([
  frame("T", Uint8Array.of(0, 0)),
  frame("D", Uint8Array.of(0, 3), column("one"), NULL, column("")),
  frame("S", utf8("TimeZone\0UTC\0")),
  frame("C", utf8("SELECT\0")),
  frame("Z", utf8("I")),
  frame("W", Uint8Array.of(0, 0, 0)),
  xlogData(0x1_0000_0000n, PAYLOAD),
  keepalive(0xffff_ffff_ffff_ffffn, 1),
  xlogData(0x1_0000_02bcn, Uint8Array.of(1)),
  xlogData(5n, new Uint8Array(0)),
  keepalive(9n, 0),
  frame("E", utf8("SERROR\0C58P01\0Mgone\0\0")),
  frame("c"),
]);
const EXPECTED: BackendMessage[] = [
  { kind: "row", columns: [utf8("one"), undefined, utf8("")] },
  { kind: "command_complete" },
  { kind: "ready" },
  { kind: "copy_both" },
  { kind: "data", start: lsn(0x1_0000_0000n), walEnd: lsn(0x1_0000_03e8n), bytes: PAYLOAD },
  { kind: "keepalive", walEnd: lsn(0xffff_ffff_ffff_ffffn), replyRequested: true },
  {
    kind: "data",
    start: lsn(0x1_0000_02bcn),
    walEnd: lsn(0x1_0000_06a4n),
    bytes: Uint8Array.of(1),
  },
  { kind: "keepalive", walEnd: lsn(9n), replyRequested: false },
  { kind: "error", code: "58P01", message: "gone" },
  { kind: "copy_done" },
];

Deno.test("BackendParser reads the same messages wherever the stream is cut", () => {
  assert.deepEqual(parse(STREAM, []), EXPECTED);
  for (let cut = 1; cut < STREAM.length; cut++) assert.deepEqual(parse(STREAM, [cut]), EXPECTED);
  assert.deepEqual(parse(STREAM, Array.from(STREAM, (_, i) => i)), EXPECTED);
  fc.assert(fc.property(fc.array(fc.nat(), { maxLength: 20 }), (cuts) => {
    assert.deepEqual(parse(STREAM, cuts), EXPECTED);
  }));
});

Deno.test("BackendParser hands out WAL as views into the chunk, without waiting for the rest", () => {
  const parser = new BackendParser();
  const chunk = xlogData(64n, PAYLOAD).subarray(0, 130);
  const [first, ...rest] = parser.push(chunk);
  assert.equal(rest.length, 0);
  assert.equal(first?.kind, "data");
  assert.equal(first.bytes.buffer, chunk.buffer);
  assert.equal(first.bytes.length, 100);
});

Deno.test("BackendParser gives only protocol errors on garbage", () => {
  fc.assert(fc.property(fc.array(fc.uint8Array({ maxLength: 64 })), (chunks) => {
    const parser = new BackendParser();
    try {
      for (const chunk of chunks) parser.push(chunk);
    } catch (error) {
      assert.ok(error instanceof AppError && error.kind === "protocol", String(error));
    }
  }));
  fc.assert(
    fc.property(fc.nat(STREAM.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const damaged = STREAM.slice();
      damaged[at] = (damaged[at] ?? 0) ^ change;
      try {
        parse(damaged, []);
      } catch (error) {
        assert.ok(error instanceof AppError && error.kind === "protocol", String(error));
      }
    }),
    { numRuns: 1000 },
  );
});

Deno.test("BackendParser refuses each malformed message", () => {
  const head = (type: string, length: number) => {
    const bytes = new Uint8Array(5);
    bytes[0] = type.charCodeAt(0);
    viewOf(bytes).setUint32(1, length);
    return bytes;
  };
  const malformed: Record<string, Uint8Array> = {
    "length below 4": head("D", 3),
    "message over the cap": head("D", MESSAGE_BYTES_MAX + 5),
    "data over the cap": head("d", DATA_BYTES_MAX + 5),
    "empty CopyData": head("d", 4),
    "unknown CopyData": frame("d", utf8("x")),
    "short XLogData": frame("d", utf8("w"), u64(1n)),
    "long keepalive": frame("d", utf8("k"), u64(1n, 2n), Uint8Array.of(0, 0)),
    "unknown type": frame("?"),
    "row without count": frame("D", Uint8Array.of(0)),
    "row cut in a length": frame("D", Uint8Array.of(0, 1, 0, 0)),
    "row cut in a column": frame("D", Uint8Array.of(0, 1), column("abc").subarray(0, 6)),
    "row with a negative length": frame("D", Uint8Array.of(0, 1, 255, 255, 255, 254)),
    "row with a tail": frame("D", Uint8Array.of(0, 0, 0)),
    "error without end": frame("E", utf8("Cxx")),
    "WAL past the last position": frame(
      "d",
      utf8("w"),
      u64(0xffff_ffff_ffff_fff0n, 0n, 0n),
      new Uint8Array(16),
    ),
  };
  for (const [name, bytes] of Object.entries(malformed)) {
    assert.throws(
      () => new BackendParser().push(bytes),
      (error) => isKind(error, "protocol"),
      name,
    );
  }
});
