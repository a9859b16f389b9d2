/**
 * The document in a session marker: it announces a writer whose packs are not indexed yet, so that garbage collection
 * spares them (reference/kopia.md 3.9). It is stored as a sealed blob with prefix `s` and the session id as suffix.
 *
 * @module
 */

import { z } from "zod";
import { type Bytes, fromUtf8, utf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { formatGoTime, goJson, parseGoTime } from "../go_json.ts";

/** Prefix of a marker's blob id. */
export const SESSION_MARKER_PREFIX = "s";

/** Who writes, since when and when it last said so; times in nanoseconds since the epoch. */
export interface SessionMarker {
  readonly sessionId: string;
  readonly startNs: bigint;
  readonly checkpointNs: bigint;
  readonly user: string;
  readonly host: string;
}

const DOCUMENT = z.object({
  id: z.string(),
  startTime: z.string(),
  checkpointTime: z.string(),
  username: z.string(),
  hostname: z.string(),
});
const DOCUMENT_BYTES_MAX = 1 << 16;

/** The JSON document. */
export function encodeSessionMarker(marker: SessionMarker): Bytes {
  return utf8(goJson({
    id: marker.sessionId,
    startTime: formatGoTime(marker.startNs),
    checkpointTime: formatGoTime(marker.checkpointNs),
    username: marker.user,
    hostname: marker.host,
  }));
}

/** Reads it back; throws `corruption` for what is no such document, `protocol` for a malformed time. */
export function decodeSessionMarker(bytes: Uint8Array): SessionMarker {
  const document = DOCUMENT.safeParse(parse(bytes)).data;
  if (document === undefined) {
    throw new AppError("corruption", `Decode a session marker of ${bytes.length} bytes: malformed`);
  }
  return {
    sessionId: document.id,
    startNs: parseGoTime(document.startTime),
    checkpointNs: parseGoTime(document.checkpointTime),
    user: document.username,
    host: document.hostname,
  };
}

function parse(bytes: Uint8Array): unknown {
  if (bytes.length > DOCUMENT_BYTES_MAX) return undefined;
  try {
    return JSON.parse(fromUtf8(bytes));
  } catch {
    return undefined;
  }
}
