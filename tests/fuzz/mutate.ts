/**
 * Bytes that no honest peer sends: valid samples with a few things wrong, and pure garbage. Everything comes from one
 * seeded generator, so a seed brings an input back.
 *
 * @module
 */

import { type Bytes, concat } from "../../src/base/bytes.ts";
import type {
  Field,
  MessageTable,
  ScalarType,
  SingleField,
} from "../../src/codec/protobuf/schema.ts";
import type { SeededRandom } from "../support/seeded_random.ts";

const GARBAGE_BYTES_MAX = 300;
const CHANGES_MAX = 4;
/** Bytes and integers at which decoders go wrong. */
const EDGES: readonly [Bytes, ...Bytes[]] = [
  Uint8Array.of(0),
  Uint8Array.of(0xff),
  Uint8Array.of(0x7f),
  Uint8Array.of(0x80),
  Uint8Array.of(0, 0, 0, 0),
  Uint8Array.of(0xff, 0xff, 0xff, 0xff),
  Uint8Array.of(0x7f, 0xff, 0xff, 0xff),
  Uint8Array.of(0x80, 0, 0, 0),
  new Uint8Array(8).fill(0xff),
  new Uint8Array(10).fill(0xff),
  new TextEncoder().encode("-1"),
  new TextEncoder().encode("9007199254740993"),
  new TextEncoder().encode("1e999"),
  new TextEncoder().encode("null"),
  new TextEncoder().encode("{}"),
  new TextEncoder().encode("[]"),
  new TextEncoder().encode('"'),
  new TextEncoder().encode("\ud800\u0000"),
  new TextEncoder().encode("__proto__"),
  new TextEncoder().encode("\n"),
];

/** Random bytes. */
export function garbage(random: SeededRandom): Bytes {
  return random.bytes(random.integer(0, GARBAGE_BYTES_MAX));
}

/** A sample with one to {@link CHANGES_MAX} changes; `other` is where foreign pieces come from. */
export function mutate(random: SeededRandom, sample: Bytes, other: Bytes): Bytes {
  let bytes = sample;
  for (let left = random.integer(1, CHANGES_MAX); left > 0; left--) {
    bytes = change(random, bytes, other);
  }
  return bytes;
}

function change(random: SeededRandom, bytes: Bytes, other: Bytes): Bytes {
  const at = random.integer(0, bytes.length);
  const end = Math.min(bytes.length, at + random.integer(0, 40));
  const cut = (middle: Uint8Array, from = at, to = end) =>
    concat([bytes.subarray(0, from), middle, bytes.subarray(to)]);
  switch (random.integer(0, 7)) {
    case 0: {
      const flipped = bytes.slice();
      const where = random.integer(0, Math.max(0, bytes.length - 1));
      if (flipped.length > 0) flipped[where] = (flipped[where] ?? 0) ^ (1 << random.integer(0, 7));
      return flipped;
    }
    case 1:
      return bytes.slice(0, at);
    case 2:
      return bytes.slice(at);
    case 3:
      return cut(new Uint8Array());
    case 4: {
      const edge = random.pick(EDGES);
      return cut(edge, at, Math.min(bytes.length, at + edge.length));
    }
    case 5:
      return cut(random.pick(EDGES), at, at);
    case 6:
      return cut(concat([bytes.subarray(at, end), bytes.subarray(at, end)]));
    default: {
      const from = random.integer(0, other.length);
      return cut(other.subarray(from, from + random.integer(0, 40)), at, at);
    }
  }
}

/** The wire form of a message in which every field is present: written here, so that it owes nothing to our encoder. */
export function messageSample(random: SeededRandom, table: MessageTable): Bytes {
  return concat(Object.values(table.fields).flatMap((field) => fieldSample(random, field)));
}

function fieldSample(random: SeededRandom, field: Field): Bytes[] {
  switch (field.kind) {
    case "scalar":
    case "message":
      return [singleSample(random, field)];
    case "repeated":
      return [singleSample(random, field.item), singleSample(random, field.item)];
    case "map": {
      const entry = concat([
        delimited(1, new TextEncoder().encode("key")),
        delimited(2, new TextEncoder().encode("value")),
      ]);
      return [delimited(field.number, entry)];
    }
    case "oneof": {
      const [first, ...others] = Object.values(field.members);
      return first === undefined ? [] : [singleSample(random, random.pick([first, ...others]))];
    }
  }
}

function singleSample(random: SeededRandom, field: SingleField): Bytes {
  if (field.kind === "message") {
    return delimited(field.number, messageSample(random, field.table));
  }
  return scalarSample(random, field.number, field.type);
}

function scalarSample(random: SeededRandom, number: number, type: ScalarType): Bytes {
  switch (type) {
    case "string":
      return delimited(number, new TextEncoder().encode("000000010000000000000005"));
    case "bytes":
      return delimited(number, random.bytes(20));
    case "fixed64":
      return concat([varint(number * 8 + 1), random.bytes(8)]);
    default:
      return concat([varint(number * 8), varint(random.integer(0, 0x7fff_ffff))]);
  }
}

function delimited(number: number, payload: Uint8Array): Bytes {
  return concat([varint(number * 8 + 2), varint(payload.length), payload]);
}

function varint(value: number): Bytes {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  return Uint8Array.from([...bytes, rest]);
}
