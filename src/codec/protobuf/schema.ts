/**
 * Tables that describe proto3 messages, and the TypeScript types of their values. A table is the one definition of a
 * message in our code; a test compares all tables with the `.proto` files.
 *
 * Presence follows proto3: a scalar that is absent reads as its default, a message or oneof as undefined.
 *
 * @module
 */

import type { Bytes } from "../../base/bytes.ts";

/** Scalar types and what they are in TypeScript. */
export interface ScalarValues {
  readonly string: string;
  /** Read: a view of the input. */
  readonly bytes: Bytes;
  readonly bool: boolean;
  readonly enum: number;
  readonly int32: number;
  readonly uint32: number;
  readonly int64: bigint;
  readonly uint64: bigint;
  readonly fixed64: bigint;
  /** int64 whose values stay within 2^53: others are `protocol`. */
  readonly int64_number: number;
  /** uint64 whose values stay within 2^53: others are `protocol`. */
  readonly uint64_number: number;
}

/** Name of a scalar type. */
export type ScalarType = keyof ScalarValues;

/** A field with one value. */
export interface ScalarField<T extends ScalarType = ScalarType> {
  readonly kind: "scalar";
  readonly number: number;
  readonly type: T;
}

/** A field that holds a message. */
export interface MessageField<M extends MessageTable = MessageTable> {
  readonly kind: "message";
  readonly number: number;
  readonly table: M;
}

/** A field with many values. Packed scalars do not occur in our protocols. */
export interface RepeatedField<F extends SingleField = SingleField> {
  readonly kind: "repeated";
  readonly number: number;
  readonly item: F;
}

/** `map<string, string>`. */
export interface MapField {
  readonly kind: "map";
  readonly number: number;
}

/** Fields of which at most one is present. */
export interface OneofField<M extends Members = Members> {
  readonly kind: "oneof";
  readonly members: M;
}

/** A field that holds one thing. */
export type SingleField = ScalarField | MessageField;
/** Anything that may stand in a table. */
export type Field = SingleField | RepeatedField | MapField | OneofField;
/** Members of a oneof by name. */
export interface Members {
  readonly [name: string]: SingleField;
}
/** A message: its fields by name, names in camelCase. */
export interface MessageTable {
  readonly name: string;
  readonly fields: Readonly<Record<string, Field>>;
}

type SingleValue<F> = F extends ScalarField<infer T> ? ScalarValues[T]
  : F extends MessageField<infer M> ? MessageValue<M>
  : never;

type OneofValue<M extends Members> = {
  readonly [K in keyof M]: { readonly kind: K; readonly value: SingleValue<M[K]> };
}[keyof M];

type FieldValue<F> = F extends ScalarField ? SingleValue<F>
  : F extends MessageField ? SingleValue<F> | undefined
  : F extends RepeatedField<infer I> ? ReadonlyArray<SingleValue<I>>
  : F extends MapField ? Readonly<Record<string, string>>
  : F extends OneofField<infer M> ? OneofValue<M> | undefined
  : never;

/** A decoded message. */
export type MessageValue<M extends MessageTable> = {
  readonly [K in keyof M["fields"]]: FieldValue<M["fields"][K]>;
};

type SingleInput<F> = F extends ScalarField<infer T> ? T extends "bytes" ? Uint8Array
  : ScalarValues[T]
  : F extends MessageField<infer M> ? MessageInput<M>
  : never;

type OneofInput<M extends Members> = {
  readonly [K in keyof M]: { readonly kind: K; readonly value: SingleInput<M[K]> };
}[keyof M];

type FieldInput<F> = F extends SingleField ? SingleInput<F>
  : F extends RepeatedField<infer I> ? ReadonlyArray<SingleInput<I>>
  : F extends MapField ? Readonly<Record<string, string>>
  : F extends OneofField<infer M> ? OneofInput<M>
  : never;

/** A message to encode: what is left out has its default. */
export type MessageInput<M extends MessageTable> = {
  readonly [K in keyof M["fields"]]?: FieldInput<M["fields"][K]> | undefined;
};

/** A table. */
export function message<const F extends Readonly<Record<string, Field>>>(
  name: string,
  fields: F,
): { readonly name: string; readonly fields: F } {
  return { name, fields };
}

/** A scalar field. */
export function scalar<const T extends ScalarType>(number: number, type: T): ScalarField<T> {
  return { kind: "scalar", number, type };
}

/** A message field. */
export function nested<const M extends MessageTable>(number: number, table: M): MessageField<M> {
  return { kind: "message", number, table };
}

/** A repeated field. */
export function repeated<const F extends SingleField>(item: F): RepeatedField<F> {
  return { kind: "repeated", number: item.number, item };
}

/** A `map<string, string>` field. */
export function stringMap(number: number): MapField {
  return { kind: "map", number };
}

/** A oneof. */
export function oneof<const M extends Members>(members: M): OneofField<M> {
  return { kind: "oneof", members };
}
