/**
 * Decoding of proto3 messages by table. Zero-copy: `bytes` fields are views of the input, which the caller must leave
 * alone as long as it uses them. Memory is bounded by the input: nothing is allocated from a length that was not checked
 * against it. Garbage gives only `protocol`.
 *
 * Stricter than the reference implementation in three points, none of which a sane encoder meets: a known field with
 * another wire type is an error instead of unknown; a singular message that occurs twice is replaced, not merged; groups
 * are refused.
 *
 * @module
 */

import { unreachable } from "../../base/assert.ts";
import type { Bytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import type { Field, MessageTable, MessageValue, ScalarType, SingleField } from "./schema.ts";
import { WIRE, WireReader } from "./wire.ts";

/** Our deepest message has four levels. */
const DEPTH_MAX = 16;
const EMPTY_BYTES = new Uint8Array(0);

/** The message in `bytes`. Throws `protocol`. */
export function decode<M extends MessageTable>(table: M, bytes: Bytes): MessageValue<M> {
  // The table says which property has which type; the type system cannot follow that through a loop.
  return readMessage(new WireReader(bytes), planOf(table), 1) as MessageValue<M>;
}

interface Slot {
  readonly property: string;
  readonly field: Exclude<Field, { readonly kind: "oneof" }>;
  /** Name within its oneof, when it is a member of one. */
  readonly member: string | undefined;
}

interface Plan {
  readonly table: MessageTable;
  readonly slots: ReadonlyMap<number, Slot>;
}

const PLANS = new WeakMap<MessageTable, Plan>();

function planOf(table: MessageTable): Plan {
  const known = PLANS.get(table);
  if (known !== undefined) return known;
  const slots = new Map<number, Slot>();
  for (const [property, field] of Object.entries(table.fields)) {
    if (field.kind === "oneof") {
      for (const [member, single] of Object.entries(field.members)) {
        slots.set(single.number, { property, field: single, member });
      }
    } else slots.set(field.number, { property, field, member: undefined });
  }
  const plan = { table, slots };
  PLANS.set(table, plan);
  return plan;
}

function readMessage(reader: WireReader, plan: Plan, depth: number): Record<string, unknown> {
  if (depth > DEPTH_MAX) throw new AppError("protocol", "Decode protobuf message: nested too deep");
  const value: Record<string, unknown> = {};
  const lists = new Map<string, unknown[]>();
  for (const [property, field] of Object.entries(plan.table.fields)) {
    value[property] = defaultOf(field);
  }
  while (!reader.atEnd) {
    const { number, wire } = reader.tag();
    const slot = plan.slots.get(number);
    if (slot === undefined) {
      reader.skip(wire);
      continue;
    }
    const { property, field, member } = slot;
    if (field.kind === "repeated" || field.kind === "map") {
      const list = lists.get(property) ?? [];
      lists.set(property, list);
      list.push(
        field.kind === "map"
          ? readMapEntry(reader, wire)
          : readSingle(reader, field.item, wire, depth),
      );
    } else {
      const single = readSingle(reader, field, wire, depth);
      value[property] = member === undefined ? single : { kind: member, value: single };
    }
  }
  for (const [property, list] of lists) {
    // Object.fromEntries defines properties, so a key "__proto__" stays a key.
    value[property] = plan.table.fields[property]?.kind === "map"
      ? Object.fromEntries(list as Array<[string, string]>)
      : list;
  }
  return value;
}

function defaultOf(field: Field): unknown {
  switch (field.kind) {
    case "scalar":
      return defaultScalar(field.type);
    case "repeated":
      return [];
    case "map":
      return {};
    case "message":
    case "oneof":
      return undefined;
    default:
      return unreachable(field, "field kind");
  }
}

function defaultScalar(type: ScalarType): unknown {
  switch (type) {
    case "string":
      return "";
    case "bytes":
      return EMPTY_BYTES;
    case "bool":
      return false;
    case "int64":
    case "uint64":
    case "fixed64":
      return 0n;
    case "enum":
    case "int32":
    case "uint32":
    case "int64_number":
    case "uint64_number":
      return 0;
    default:
      return unreachable(type, "scalar type");
  }
}

function expectWire(actual: number, wanted: number): void {
  if (actual !== wanted) {
    throw new AppError(
      "protocol",
      `Decode protobuf message: field has wire type ${actual}, wanted ${wanted}`,
    );
  }
}

function readSingle(
  reader: WireReader,
  field: SingleField,
  wire: number,
  depth: number,
): unknown {
  if (field.kind === "scalar") return readScalar(reader, field.type, wire);
  expectWire(wire, WIRE.delimited);
  const outer = reader.enter();
  const value = readMessage(reader, planOf(field.table), depth + 1);
  reader.leave(outer);
  return value;
}

function readMapEntry(reader: WireReader, wire: number): readonly [string, string] {
  expectWire(wire, WIRE.delimited);
  const outer = reader.enter();
  let key = "";
  let value = "";
  while (!reader.atEnd) {
    const tag = reader.tag();
    if (tag.number === 1) {
      expectWire(tag.wire, WIRE.delimited);
      key = reader.string();
    } else if (tag.number === 2) {
      expectWire(tag.wire, WIRE.delimited);
      value = reader.string();
    } else reader.skip(tag.wire);
  }
  reader.leave(outer);
  return [key, value];
}

function readScalar(reader: WireReader, type: ScalarType, wire: number): unknown {
  switch (type) {
    case "string":
      expectWire(wire, WIRE.delimited);
      return reader.string();
    case "bytes":
      expectWire(wire, WIRE.delimited);
      return reader.bytes();
    case "fixed64":
      expectWire(wire, WIRE.fixed64);
      return reader.fixed64();
    default:
      expectWire(wire, WIRE.varint);
      return readVarint(reader, type);
  }
}

function readVarint(
  reader: WireReader,
  type: Exclude<ScalarType, "string" | "bytes" | "fixed64">,
): unknown {
  switch (type) {
    case "bool":
      return reader.bool();
    case "enum":
    case "int32":
      return reader.uint32() | 0;
    case "uint32":
      return reader.uint32();
    case "int64":
      return reader.int64();
    case "uint64":
      return reader.uint64();
    case "int64_number":
      return reader.int64AsNumber();
    case "uint64_number":
      return reader.uint64AsNumber();
    default:
      return unreachable(type, "scalar type");
  }
}
