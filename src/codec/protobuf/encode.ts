/**
 * Encoding of proto3 messages by table: one pass computes sizes, one exact allocation, one pass writes. Defaults are left
 * out, members of a oneof are always written, as proto3 wants it. Values outside their type are a bug of the caller.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { assert, unreachable } from "../../base/assert.ts";
import type { Bytes } from "../../base/bytes.ts";
import type { Field, MessageInput, MessageTable, ScalarType, SingleField } from "./schema.ts";
import { varint64Size, varintSize, WIRE, WireWriter } from "./wire.ts";

/** The encoded message, owned by the caller. */
export function encode<M extends MessageTable>(table: M, value: MessageInput<M>): Bytes {
  const plan = planMessage(table, value);
  const writer = new WireWriter(plan.sizeBytes);
  for (const write of plan.writes) write(writer);
  return writer.finish();
}

/** What to write, and how long it is; nothing is copied until all sizes are known. */
interface Plan {
  sizeBytes: number;
  readonly writes: Array<(writer: WireWriter) => void>;
}

function planMessage(table: MessageTable, value: Readonly<Record<string, unknown>>): Plan {
  const plan: Plan = { sizeBytes: 0, writes: [] };
  for (const [property, field] of Object.entries(table.fields)) {
    const fieldValue = value[property];
    if (fieldValue !== undefined) planField(plan, field, fieldValue);
  }
  return plan;
}

// The casts below are the codec's boundary: MessageInput has already tied each value to its field.
function planField(plan: Plan, field: Field, value: unknown): void {
  switch (field.kind) {
    case "scalar":
      if (!isDefault(value)) planScalar(plan, field.number, field.type, value);
      break;
    case "message":
      planNested(plan, field.number, planMessage(field.table, value as Record<string, unknown>));
      break;
    case "repeated":
      for (const item of value as readonly unknown[]) planSingle(plan, field.item, item);
      break;
    case "map":
      for (const [key, text] of Object.entries(value as Record<string, string>)) {
        const entry: Plan = { sizeBytes: 0, writes: [] };
        planScalar(entry, 1, "string", key);
        planScalar(entry, 2, "string", text);
        planNested(plan, field.number, entry);
      }
      break;
    case "oneof": {
      const chosen = value as { readonly kind: string; readonly value: unknown };
      const member = field.members[chosen.kind];
      assert(member !== undefined, "the member of a oneof is in its table");
      planSingle(plan, member, chosen.value);
      break;
    }
    default:
      unreachable(field, "field kind");
  }
}

function planSingle(plan: Plan, field: SingleField, value: unknown): void {
  if (field.kind === "scalar") planScalar(plan, field.number, field.type, value);
  else planNested(plan, field.number, planMessage(field.table, value as Record<string, unknown>));
}

function isDefault(value: unknown): boolean {
  return value === "" || value === 0 || value === 0n || value === false ||
    (value instanceof Uint8Array && value.length === 0);
}

function planTag(plan: Plan, number: number, wire: number): void {
  const tag = number * 8 + wire;
  plan.sizeBytes += varintSize(tag);
  plan.writes.push((writer) => writer.varint(tag));
}

function planNested(plan: Plan, number: number, inner: Plan): void {
  planTag(plan, number, WIRE.delimited);
  plan.sizeBytes += varintSize(inner.sizeBytes) + inner.sizeBytes;
  plan.writes.push((writer) => writer.varint(inner.sizeBytes));
  for (const write of inner.writes) plan.writes.push(write);
}

function planScalar(plan: Plan, number: number, type: ScalarType, value: unknown): void {
  switch (type) {
    case "string":
      return planString(plan, number, value as string);
    case "bytes":
      return planBytes(plan, number, value as Uint8Array);
    case "fixed64": {
      planTag(plan, number, WIRE.fixed64);
      plan.sizeBytes += 8;
      plan.writes.push((writer) => writer.fixed64(value as bigint));
      return;
    }
    case "bool":
      return planUnsigned(plan, number, value === true ? 1 : 0);
    case "uint32":
      assert(value === (value as number) >>> 0, "a uint32 fits 32 bits");
      return planUnsigned(plan, number, value as number);
    case "enum":
    case "int32":
      assert(value === ((value as number) | 0), "an int32 fits 32 bits");
      return planVarint64(plan, number, BigInt(value as number));
    case "uint64_number":
      assert(Number.isSafeInteger(value) && (value as number) >= 0, "a uint64 is exact");
      return planUnsigned(plan, number, value as number);
    case "int64_number":
      assert(Number.isSafeInteger(value), "an int64 is exact");
      return planVarint64(plan, number, BigInt(value as number));
    case "uint64":
    case "int64":
      return planVarint64(plan, number, value as bigint);
    default:
      return unreachable(type, "scalar type");
  }
}

function planString(plan: Plan, number: number, text: string): void {
  planTag(plan, number, WIRE.delimited);
  const sizeBytes = Buffer.byteLength(text);
  plan.sizeBytes += varintSize(sizeBytes) + sizeBytes;
  plan.writes.push((writer) => {
    writer.varint(sizeBytes);
    writer.string(text);
  });
}

function planBytes(plan: Plan, number: number, bytes: Uint8Array): void {
  planTag(plan, number, WIRE.delimited);
  plan.sizeBytes += varintSize(bytes.length) + bytes.length;
  plan.writes.push((writer) => {
    writer.varint(bytes.length);
    writer.bytes(bytes);
  });
}

function planUnsigned(plan: Plan, number: number, value: number): void {
  planTag(plan, number, WIRE.varint);
  plan.sizeBytes += varintSize(value);
  plan.writes.push((writer) => writer.varint(value));
}

function planVarint64(plan: Plan, number: number, value: bigint): void {
  planTag(plan, number, WIRE.varint);
  plan.sizeBytes += varint64Size(value);
  plan.writes.push((writer) => writer.varint64(value));
}
