/**
 * The part of DER (ITU-T X.690) that writing an X.509 certificate needs. Writing only: certificates are read by
 * `node:crypto`, never by us. Every function returns one complete element.
 *
 * @module
 */

import { assert } from "../../base/assert.ts";
import { type Bytes, concat, utf8 } from "../../base/bytes.ts";

const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectId: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;
const CONTEXT_CLASS = 0x80;
const CONSTRUCTED = 0x20;

/** Any element: tag, definite length, content. */
function element(tag: number, ...content: readonly Uint8Array[]): Bytes {
  const body = concat(content);
  return concat([Uint8Array.of(tag, ...lengthOctets(body.length)), body]);
}

function lengthOctets(length: number): number[] {
  if (length < 0x80) return [length];
  const octets: number[] = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) octets.unshift(rest % 256);
  return [0x80 | octets.length, ...octets];
}

/** SEQUENCE of complete elements. */
export function sequence(...elements: readonly Uint8Array[]): Bytes {
  return element(TAG.sequence, ...elements);
}

/** SET of complete elements; the caller orders them. */
export function set(...elements: readonly Uint8Array[]): Bytes {
  return element(TAG.set, ...elements);
}

/** INTEGER that is not negative, from big-endian bytes without leading zeros. */
export function integer(magnitude: Uint8Array): Bytes {
  const needsSignOctet = magnitude.length === 0 || (magnitude[0] ?? 0) >= 0x80;
  return element(TAG.integer, Uint8Array.of(...(needsSignOctet ? [0] : [])), magnitude);
}

/** BOOLEAN TRUE; DER leaves out a FALSE that is the default. */
export function booleanTrue(): Bytes {
  return element(TAG.boolean, Uint8Array.of(0xff));
}

/** BIT STRING; `unusedBits` of the last byte do not count. */
export function bitString(bytes: Uint8Array, unusedBits = 0): Bytes {
  return element(TAG.bitString, Uint8Array.of(unusedBits), bytes);
}

/** OCTET STRING. */
export function octetString(bytes: Uint8Array): Bytes {
  return element(TAG.octetString, bytes);
}

/** UTF8String. */
export function utf8String(text: string): Bytes {
  return element(TAG.utf8String, utf8(text));
}

/** OBJECT IDENTIFIER from its dotted form. */
export function objectId(dotted: string): Bytes {
  const arcs = dotted.split(".").map(Number);
  const [first, second, ...rest] = arcs;
  assert(first !== undefined && second !== undefined, "an object id has at least two arcs");
  const octets: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const groups = [arc % 128];
    for (let high = Math.floor(arc / 128); high > 0; high = Math.floor(high / 128)) {
      groups.unshift(0x80 | high % 128);
    }
    octets.push(...groups);
  }
  return element(TAG.objectId, Uint8Array.from(octets));
}

/** A moment as RFC 5280 wants it: UTCTime until 2049, GeneralizedTime from 2050; whole seconds. */
export function time(momentMs: number): Bytes {
  const digits = new Date(momentMs).toISOString().replace(/\.\d+Z$/, "").replace(/\D/g, "");
  const year = Number(digits.slice(0, 4));
  return year >= 1950 && year < 2050
    ? element(TAG.utcTime, utf8(`${digits.slice(2)}Z`))
    : element(TAG.generalizedTime, utf8(`${digits}Z`));
}

/** Context-specific element with explicit tagging: `[number] { element }`. */
export function explicit(number: number, content: Uint8Array): Bytes {
  return element(CONTEXT_CLASS | CONSTRUCTED | number, content);
}

/** Context-specific primitive element with implicit tagging. */
export function implicit(number: number, content: Uint8Array): Bytes {
  return element(CONTEXT_CLASS | number, content);
}
