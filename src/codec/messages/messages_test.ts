import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import protobuf from "protobufjs";
import type { Bytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { decode } from "../protobuf/decode.ts";
import { encode } from "../protobuf/encode.ts";
import type { Field, MessageTable, ScalarType, SingleField } from "../protobuf/schema.ts";
import * as repository from "./kopia_repository.ts";
import * as stream from "./stream.ts";
import * as wal from "./wal.ts";

const PROTO = fileURLToPath(new URL("../../../proto/", import.meta.url));
const FILES = [
  {
    path: "kopia_repository.proto",
    prefix: "kopia_repository",
    service: repository.REPOSITORY_SERVICE,
    tables: repository,
  },
  { path: "klio/wal/v1/wal.proto", prefix: "klio.wal.v1", service: wal.WAL_SERVICE, tables: wal },
  {
    path: "klio/stream/v1/stream.proto",
    prefix: "klio.stream.v1",
    service: stream.STREAM_SERVICE,
    tables: stream,
  },
];

function isTable(value: unknown): value is MessageTable {
  return typeof value === "object" && value !== null && "fields" in value && "name" in value;
}

/** Tables of a module and those inside them, by name. */
function tablesOf(module: object): Map<string, MessageTable> {
  const found = new Map<string, MessageTable>();
  const visit = (table: MessageTable) => {
    if (found.has(table.name)) return;
    found.set(table.name, table);
    for (const field of Object.values(table.fields)) {
      for (const single of singles(field)) if (single.kind === "message") visit(single.table);
    }
  };
  for (const value of Object.values(module)) if (isTable(value)) visit(value);
  return found;
}

function singles(field: Field): readonly SingleField[] {
  if (field.kind === "oneof") return Object.values(field.members);
  if (field.kind === "repeated") return [field.item];
  return field.kind === "map" ? [] : [field];
}

const protoType = (type: ScalarType) => type.replace(/_number$/, "");

/** One line per field, the same from a table and from a .proto file. */
function describeTable(table: MessageTable): string[] {
  const lines: string[] = [];
  const single = (name: string, field: SingleField, of: string) => {
    const type = field.kind === "scalar" ? protoType(field.type) : field.table.name;
    lines.push(`${field.number} ${name} ${of}${type}`);
  };
  for (const [name, field] of Object.entries(table.fields)) {
    if (field.kind === "oneof") {
      for (const [member, one] of Object.entries(field.members)) single(member, one, `${name}: `);
    } else if (field.kind === "repeated") single(name, field.item, "repeated ");
    else if (field.kind === "map") lines.push(`${field.number} ${name} map`);
    else single(name, field, "");
  }
  return lines.sort();
}

function describeProto(type: protobuf.Type): string[] {
  return type.fieldsArray.map((field) => {
    const name = field.name;
    if (field instanceof protobuf.MapField) {
      assert.equal(`${field.keyType},${field.type}`, "string,string");
      return `${field.id} ${name} map`;
    }
    const resolved = field.resolve().resolvedType;
    const kind = resolved instanceof protobuf.Enum ? "enum" : resolved?.name ?? field.type;
    const oneof = field.partOf === null ? "" : `${field.partOf.name}: `;
    return `${field.id} ${name} ${field.repeated ? "repeated " : ""}${oneof}${kind}`;
  }).sort();
}

function load(path: string): protobuf.Root {
  const root = new protobuf.Root();
  root.resolvePath = (_, target) => target.startsWith("/") ? target : PROTO + target;
  root.loadSync(path).resolveAll();
  return root;
}

for (const { path, prefix, service, tables } of FILES) {
  Deno.test(`tables say what ${path} says`, () => {
    const root = load(path);
    const ours = tablesOf(tables);
    const namespace = root.lookup(prefix);
    assert.ok(namespace instanceof protobuf.Namespace);
    const types = namespace.nestedArray.filter((one) => one instanceof protobuf.Type);
    for (const type of types) {
      const table = ours.get(type.name);
      assert.ok(table !== undefined, `no table for ${type.name}`);
      assert.deepEqual(describeTable(table), describeProto(type), type.name);
    }
    const external = [...ours.keys()].filter((name) => !types.some((type) => type.name === name));
    assert.deepEqual(external, prefix === "klio.wal.v1" ? ["Timestamp"] : []);
    assert.equal(root.lookupService(service).fullName, `.${service}`);
  });

  Deno.test(`random messages of ${path} survive both ways`, () => {
    const root = load(path);
    for (const table of tablesOf(tables).values()) {
      const type = table.name === "Timestamp"
        ? root.lookupType("google.protobuf.Timestamp")
        : root.lookupType(`${prefix}.${table.name}`);
      fc.assert(
        fc.property(arbitraryMessage(table), (value) => {
          const bytes = encode(table, value);
          const theirs = type.decode(bytes);
          const read = type.toObject(theirs, { longs: String, bytes: String });
          assert.deepEqual(read, asTheirs(table, value));
          assert.deepEqual(decode(table, bytes), withDefaults(table, value));
          const again = new Uint8Array(type.encode(theirs).finish());
          assert.deepEqual(decode(table, again), withDefaults(table, value));
        }),
        { numRuns: 50 },
      );
    }
  });
}

Deno.test("error codes are those of the .proto file", () => {
  const codes = load("kopia_repository.proto").lookupEnum("kopia_repository.ErrorResponse.Code");
  const camel = (name: string) =>
    name.toLowerCase().replace(/_([a-z])/g, (_, c: string) => c.toUpperCase());
  const theirs = Object.entries(codes.values).map(([name, value]) => [camel(name), value]);
  assert.deepEqual(Object.fromEntries(theirs), repository.ERROR_CODE);
});

Deno.test("any bytes decode or are a protocol failure", () => {
  const all = FILES.flatMap(({ tables }) => [...tablesOf(tables).values()]);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom(...all), (bytes, table) => {
      assertDecodesOrProtocol(table, new Uint8Array(bytes));
    }),
    { numRuns: 3000 },
  );
});

Deno.test("messages with a flipped byte or a cut end decode or are a protocol failure", () => {
  const { SessionRequest } = repository;
  fc.assert(
    fc.property(arbitraryMessage(SessionRequest), fc.nat(), fc.nat(255), (value, at, flip) => {
      const bytes = encode(SessionRequest, value);
      if (bytes.length === 0) return;
      assertDecodesOrProtocol(SessionRequest, bytes.slice(0, at % bytes.length));
      bytes[at % bytes.length] = flip;
      assertDecodesOrProtocol(SessionRequest, bytes);
    }),
    { numRuns: 1000 },
  );
});

function assertDecodesOrProtocol(table: MessageTable, bytes: Bytes): void {
  try {
    decode(table, bytes);
  } catch (error) {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.kind, "protocol");
  }
}

function arbitraryScalar(type: ScalarType): fc.Arbitrary<unknown> {
  switch (type) {
    case "string":
      return fc.string({ unit: "grapheme" });
    case "bytes":
      return fc.uint8Array({ maxLength: 300 }).map((bytes) => new Uint8Array(bytes));
    case "bool":
      return fc.boolean();
    case "enum":
      return fc.nat(7);
    case "int32":
      return fc.integer();
    case "uint32":
      return fc.nat(0xffff_ffff);
    case "int64":
      return fc.bigInt(-(1n << 63n), (1n << 63n) - 1n);
    case "uint64":
    case "fixed64":
      return fc.bigInt(0n, (1n << 64n) - 1n);
    case "int64_number":
      return fc.maxSafeInteger();
    case "uint64_number":
      return fc.maxSafeNat();
  }
}

function arbitrarySingle(field: SingleField): fc.Arbitrary<unknown> {
  return field.kind === "scalar" ? arbitraryScalar(field.type) : arbitraryMessage(field.table);
}

function arbitraryField(field: Field): fc.Arbitrary<unknown> {
  switch (field.kind) {
    case "repeated":
      return fc.array(arbitrarySingle(field.item), { maxLength: 4 });
    case "map": {
      const key = fc.oneof(fc.string(), fc.constant("__proto__"));
      return fc.array(fc.tuple(key, fc.string()), { maxLength: 4 }).map(Object.fromEntries);
    }
    case "oneof":
      return fc.oneof(
        ...Object.entries(field.members).map(([kind, member]) =>
          arbitrarySingle(member).map((value) => ({ kind, value }))
        ),
      );
    default:
      return arbitrarySingle(field);
  }
}

function arbitraryMessage(table: MessageTable): fc.Arbitrary<Record<string, never>> {
  const fields = Object.entries(table.fields).map(([name, field]) =>
    [name, arbitraryField(field)] as const
  );
  return fc.record(Object.fromEntries(fields), { requiredKeys: [], noNullPrototype: true }) as // the types of a table known only at run time
  fc.Arbitrary<Record<string, never>>;
}

/** Our value as protobufjs shows it: members of oneofs beside other fields, 64 bits as text, bytes as base64. */
function asTheirs(table: MessageTable, value: Record<string, unknown>): Record<string, unknown> {
  const shown: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(table.fields)) {
    const one = value[name];
    if (one === undefined) continue;
    if (field.kind === "oneof") {
      const chosen = one as { kind: string; value: unknown };
      const member = field.members[chosen.kind];
      if (member !== undefined) shown[chosen.kind] = singleAsTheirs(member, chosen.value);
    } else if (field.kind === "repeated") {
      const items = one as unknown[];
      if (items.length > 0) shown[name] = items.map((item) => singleAsTheirs(field.item, item));
    } else if (field.kind === "map") {
      if (Object.keys(one ?? {}).length > 0) shown[name] = one;
    } else if (field.kind === "message" || !isDefaultScalar(one)) {
      shown[name] = singleAsTheirs(field, one);
    }
  }
  return shown;
}

function isDefaultScalar(value: unknown): boolean {
  return value instanceof Uint8Array ? value.length === 0 : !value;
}

function singleAsTheirs(field: SingleField, value: unknown): unknown {
  if (field.kind === "message") return asTheirs(field.table, value as Record<string, unknown>);
  if (value instanceof Uint8Array) return value.toBase64();
  return /64/.test(field.type) ? String(value) : value;
}

/** What decoding gives for what was left out. */
function withDefaults(table: MessageTable, value: Record<string, unknown>): unknown {
  const whole = { ...decode(table, new Uint8Array(0)) } as Record<string, unknown>;
  for (const [name, field] of Object.entries(table.fields)) {
    if (value[name] !== undefined) whole[name] = fieldWithDefaults(field, value[name]);
  }
  return whole;
}

function fieldWithDefaults(field: Field, value: unknown): unknown {
  if (field.kind === "message") return withDefaults(field.table, value as Record<string, unknown>);
  if (field.kind === "repeated") {
    return (value as unknown[]).map((item) => fieldWithDefaults(field.item, item));
  }
  if (field.kind !== "oneof") return value;
  const chosen = value as { kind: string; value: unknown };
  const member = field.members[chosen.kind];
  return { kind: chosen.kind, value: member && fieldWithDefaults(member, chosen.value) };
}
