/**
 * Manifest contents (prefix `m`): gzip of `{"entries":[…]}`, all entries that one flush committed (reference/kopia.md 3.12).
 * A deleted manifest is an entry with `deleted` and no data. The JSON document of a manifest is kept as its bytes: parsing
 * it would round the 64-bit integers that documents hold.
 *
 * @module
 */

import { gzipSync } from "node:zlib";
import { z } from "zod";
import { type Bytes, fromUtf8, utf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { formatGoTime, goJson, parseGoTime, RawJson } from "../go_json.ts";
import { gunzipBounded } from "./compression.ts";
import { rawElements, rawMembers } from "./raw_json.ts";

/** Prefix of manifest contents. */
export const MANIFEST_CONTENT_PREFIX = "m";

/** One version of a manifest. */
export interface StoredManifest {
  /** 32 hex digits when we made it. */
  readonly id: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly modifiedNs: bigint;
  readonly deleted: boolean;
  /** JSON document; undefined when deleted. */
  readonly data?: Bytes;
}

const HEAD = z.object({
  id: z.string().min(1),
  modified: z.string(),
  deleted: z.boolean().default(false),
});

/**
 * The content that commits `entries`; their documents are stored as they are. Throws `protocol` when one is not JSON: it
 * would make the whole content unreadable, so a session checks a document with {@link checkJson} when it is put.
 */
export function encodeManifests(entries: readonly StoredManifest[]): Bytes {
  for (const entry of entries) if (entry.data !== undefined) checkJson(entry.data);
  const document = {
    entries: entries.map((entry) => ({
      id: entry.id,
      labels: new Map(Object.entries(entry.labels)),
      modified: formatGoTime(entry.modifiedNs),
      deleted: entry.deleted ? true : undefined,
      data: entry.data === undefined ? undefined : new RawJson(fromUtf8(entry.data)),
    })),
  };
  return new Uint8Array(gzipSync(utf8(goJson(document) + "\n")));
}

/** Throws `protocol` unless `document` is one JSON value in UTF-8. */
export function checkJson(document: Uint8Array): void {
  try {
    JSON.parse(STRICT_UTF8.decode(document));
  } catch (cause) {
    throw new AppError("protocol", `Store manifest of ${document.length} bytes: not JSON`, {
      cause,
    });
  }
}

const STRICT_UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The entries of a manifest content. Throws `corruption` when it is malformed or unpacks to more than `lengthMax` bytes,
 * `protocol` for a malformed time.
 */
export function decodeManifests(bytes: Uint8Array, lengthMax: number): StoredManifest[] {
  const text = fromUtf8(gunzipBounded(bytes, lengthMax));
  try {
    JSON.parse(text); // from here on the text is known to be JSON
  } catch (cause) {
    throw new AppError("corruption", `Decode manifests of ${text.length} characters: not JSON`, {
      cause,
    });
  }
  const entries = rawMembers(text)?.get("entries");
  const elements = entries === undefined || entries === "null" ? [] : rawElements(entries);
  if (elements === undefined) throw malformed("`entries` is no list");
  return elements.map(decodeEntry);
}

function decodeEntry(text: string): StoredManifest {
  const members = rawMembers(text);
  if (members === undefined) throw malformed("an entry is no object");
  const member = (name: string): unknown => {
    const raw = members.get(name);
    return raw === undefined ? undefined : JSON.parse(raw);
  };
  const head = HEAD.safeParse({
    id: member("id"),
    modified: member("modified"),
    deleted: member("deleted"),
  });
  if (!head.success) {
    throw malformed(`field "${head.error.issues[0]?.path.join(".") ?? ""}" is malformed`);
  }
  const { id, modified, deleted } = head.data;
  const data = members.get("data");
  return {
    id,
    labels: readLabels(member("labels") ?? {}),
    modifiedNs: parseGoTime(modified),
    deleted,
    ...(data === undefined || data === "null" ? {} : { data: utf8(data) }),
  };
}

/** By hand and not by zod, which drops a label called `__proto__`; Object.fromEntries defines properties, so it stays one. */
function readLabels(value: unknown): Record<string, string> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw malformed('field "labels" is malformed');
  }
  return Object.fromEntries(
    Object.entries(value).map(([name, text]: [string, unknown]) => {
      if (typeof text !== "string") throw malformed(`field "labels.${name}" is malformed`);
      return [name, text];
    }),
  );
}

function malformed(what: string): AppError {
  return new AppError("corruption", `Decode manifests: ${what}`);
}
