/**
 * The index of an object of several pieces: JSON, byte for byte as Go writes it (reference/kopia.md 2.3). Pieces are
 * contiguous and ascending; zero fields are left out.
 *
 * @module
 */

import { type Bytes, utf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { JsonReader } from "../../base/json_reader.ts";
import { goJson } from "../go_json.ts";

/** One piece. */
export interface IndirectEntry {
  /** Offset in the object, in bytes. */
  readonly start: number;
  readonly lengthBytes: number;
  readonly objectId: string;
}

const STREAM = "kopia:indirect";

/** The index as bytes, owned. */
export function encodeIndirect(entries: readonly IndirectEntry[]): Bytes {
  const list = entries.map(({ start, lengthBytes, objectId }) => ({
    s: start === 0 ? undefined : start,
    l: lengthBytes === 0 ? undefined : lengthBytes,
    o: objectId,
  }));
  return utf8(goJson({ stream: STREAM, entries: list }) + "\n");
}

/** Reads an index. Throws `corruption` when it is malformed or has holes. */
export function decodeIndirect(document: Uint8Array): IndirectEntry[] {
  const json = JsonReader.parse(document, { what: "Read an object index", kind: "corruption" });
  if (json.string("stream") !== STREAM) json.fail("stream", `"${STREAM}"`);
  let end = 0;
  return json.objects("entries").map((item) => {
    const entry = {
      start: item.integer("s", 0),
      lengthBytes: item.integer("l", 0),
      objectId: item.string("o"),
    };
    if (entry.start !== end || entry.lengthBytes < 0) {
      throw new AppError(
        "corruption",
        `Read an object index: piece at ${entry.start} of ${entry.lengthBytes} bytes, wanted one at ${end}`,
      );
    }
    end += entry.lengthBytes;
    return entry;
  });
}
