/**
 * Snapshot manifests: labels and JSON as stock kopia writes them (reference/kopia.md 2.6; field order of v0.22.3). A tag
 * is stored twice, as a label of the manifest and in the document, under its full key.
 *
 * @module
 */

import { type Bytes, utf8 } from "../../base/bytes.ts";
import { JsonReader } from "../../base/json_reader.ts";
import { formatGoTime, goJson } from "../go_json.ts";
import { type DirectoryEntry, entryJson, readEntry, readTime } from "./directory.ts";

/** Where a snapshot was taken. */
export interface SnapshotSource {
  readonly host: string;
  readonly user: string;
  readonly path: string;
}

/** A snapshot without its id, which is that of its manifest. */
export interface Snapshot {
  readonly source: SnapshotSource;
  readonly description: string;
  readonly startTimeNs: bigint;
  readonly endTimeNs: bigint;
  /** Not empty: a checkpoint or a cancelled upload, and why. */
  readonly incomplete: string;
  readonly root: DirectoryEntry;
  /** Keys in full, `tag:` included. */
  readonly tags: ReadonlyMap<string, string>;
  readonly pins: readonly string[];
}

/** Labels by which stock finds the snapshot, tags included. */
export function snapshotLabels(snapshot: Snapshot): Record<string, string> {
  return {
    type: "snapshot",
    hostname: snapshot.source.host,
    username: snapshot.source.user,
    path: snapshot.source.path,
    ...Object.fromEntries(snapshot.tags),
  };
}

/** The document, owned. */
export function encodeSnapshot(snapshot: Snapshot): Bytes {
  const { source, root, tags, pins } = snapshot;
  const summary = root.summary;
  const files = summary?.files ?? Number(root.kind === "file");
  const document = {
    id: "",
    source: { host: source.host, userName: source.user, path: source.path },
    description: snapshot.description,
    startTime: formatGoTime(snapshot.startTimeNs),
    endTime: formatGoTime(snapshot.endTimeNs),
    stats: {
      totalSize: summary?.sizeBytes ?? root.sizeBytes,
      excludedTotalSize: 0,
      fileCount: files,
      cachedFiles: 0,
      nonCachedFiles: files,
      dirCount: summary?.directories ?? 0,
      excludedFileCount: 0,
      excludedDirCount: 0,
      ignoredErrorCount: 0,
      errorCount: 0,
    },
    incomplete: snapshot.incomplete === "" ? undefined : snapshot.incomplete,
    rootEntry: entryJson(root),
    tags: tags.size === 0 ? undefined : tags,
    pins: pins.length === 0 ? undefined : pins.toSorted(),
  };
  return utf8(goJson(document));
}

/** Reads a document. Throws `corruption`. */
export function decodeSnapshot(document: Uint8Array): Snapshot {
  const json = JsonReader.parse(document, { what: "Read a snapshot", kind: "corruption" });
  const source = json.object("source");
  return {
    source: {
      host: source.string("host"),
      user: source.string("userName", ""),
      path: source.string("path", ""),
    },
    description: json.string("description", ""),
    startTimeNs: readTime(json, "startTime"),
    endTimeNs: readTime(json, "endTime"),
    incomplete: json.string("incomplete", ""),
    root: readEntry(json.object("rootEntry")),
    tags: json.stringMap("tags"),
    pins: json.strings("pins"),
  };
}
