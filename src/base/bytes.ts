/**
 * Small helpers over byte arrays. All of them return owned bytes unless they say "view".
 *
 * @module
 */

/** Bytes backed by an ordinary (not shared) buffer. */
export type Bytes = Uint8Array<ArrayBuffer>;

const ENCODER = new TextEncoder();
/** A leading U+FEFF is a character of the text, not a mark to drop. */
const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });

/** UTF-8 encoding of a string. */
export function utf8(text: string): Bytes {
  return ENCODER.encode(text);
}

/** The string in UTF-8 bytes; malformed sequences become U+FFFD. */
export function fromUtf8(bytes: Uint8Array): string {
  return DECODER.decode(bytes);
}

/** One array holding all parts in order. */
export function concat(parts: readonly Uint8Array[]): Bytes {
  let size = 0;
  for (const part of parts) size += part.length;
  const whole = new Uint8Array(size);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/** True when both arrays hold the same bytes. Not constant-time. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Lower-case hexadecimal digits. */
export function toHex(bytes: Uint8Array): string {
  return bytes.toHex();
}

/** A big-endian or little-endian view over the same memory. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
