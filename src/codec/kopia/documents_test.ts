/**
 * Directory, index and snapshot documents against bytes made by the packages of stock kopia v0.22.3 (`snapshot.DirManifest`,
 * `snapshot.Manifest` through Go's `encoding/json`).
 *
 * @module
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { fromUtf8, utf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import {
  decodeDirectory,
  type DirectoryEntry,
  encodeDirectory,
  sortEntries,
  summarize,
} from "./directory.ts";
import { decodeIndirect, encodeIndirect } from "./indirect.ts";
import { indirectObjectId, parseObjectId } from "./object_id.ts";
import { decodeSnapshot, encodeSnapshot, type Snapshot, snapshotLabels } from "./snapshot.ts";

const EMPTY_DIRECTORY = String
  .raw`{"stream":"kopia:directory","entries":null,"summary":{"size":0,"files":0,"symlinks":0,"dirs":1,"maxTime":"2023-11-14T22:13:20.000000005Z","numFailed":0}}`;
const DIRECTORY = String
  .raw`{"stream":"kopia:directory","entries":[{"name":"sub","type":"d","mode":"020000770","mtime":"2023-11-14T22:13:20.007Z","obj":"k00112233445566778899aabbccddeeff","summ":{"size":0,"files":0,"symlinks":0,"dirs":1,"maxTime":"2023-11-14T22:13:20.000000005Z","numFailed":0}},{"name":"empty","type":"f","mode":"0600","mtime":"2023-11-14T22:13:20Z","obj":"Ix00112233445566778899aabbccddeeff"},{"name":"link","type":"s","mode":"0777","size":4,"mtime":"2023-11-14T22:13:20.000001Z","obj":"11112233445566778899aabbccddeeff"},{"name":"z\u003c\u0026\u003e\u2028é","type":"f","mode":"0640","size":8192,"mtime":"2023-11-14T22:13:20.12Z","uid":26,"gid":26,"obj":"00112233445566778899aabbccddeeff"},{"name":"￮","type":"f","mode":"044000755","mtime":"2023-11-14T22:13:20Z","obj":"22112233445566778899aabbccddeeff"},{"name":"😀","type":"f","obj":"22112233445566778899aabbccddeeff"}],"summary":{"size":8192,"files":4,"symlinks":1,"dirs":2,"maxTime":"2023-11-14T22:13:20.12Z","numFailed":0}}`;
const SNAPSHOT = String
  .raw`{"id":"","source":{"host":"cluster-a","userName":"klio","path":"/pg/data"},"description":"pgdata","startTime":"2023-11-14T22:13:20.000000001Z","endTime":"2023-11-14T22:13:20.000000002Z","stats":{"totalSize":8192,"excludedTotalSize":0,"fileCount":4,"cachedFiles":0,"nonCachedFiles":4,"dirCount":2,"excludedFileCount":0,"excludedDirCount":0,"ignoredErrorCount":0,"errorCount":0},"rootEntry":{"name":"data","type":"d","mode":"0700","mtime":"2023-11-14T22:13:20.000000009Z","uid":26,"gid":26,"obj":"Ik00112233445566778899aabbccddeeff","summ":{"size":8192,"files":4,"symlinks":1,"dirs":2,"maxTime":"2023-11-14T22:13:20.12Z","numFailed":0}},"tags":{"tag:klio.io/content":"pgdata","tag:klio.io/tag":"backup-1"},"pins":["a","b"]}`;

const SECOND_NS = 1_700_000_000_000_000_000n;
const HASH = "112233445566778899aabbccddeeff";

function entry(fields: Partial<DirectoryEntry> & { readonly name: string }): DirectoryEntry {
  return {
    kind: "file",
    mode: 0,
    sizeBytes: 0,
    mtimeNs: SECOND_NS,
    uid: 0,
    gid: 0,
    objectId: `22${HASH}`,
    summary: undefined,
    ...fields,
  };
}

function sampleEntries(): DirectoryEntry[] {
  return sortEntries([
    entry({
      name: "z<&>\u2028é",
      mode: 0o640,
      sizeBytes: 8192,
      mtimeNs: SECOND_NS + 120_000_000n,
      uid: 26,
      gid: 26,
      objectId: `00${HASH}`,
    }),
    entry({ name: "empty", mode: 0o600, objectId: `Ix00${HASH}` }),
    entry({
      name: "link",
      kind: "symlink",
      mode: 0o777,
      sizeBytes: 4,
      mtimeNs: SECOND_NS + 1000n,
      objectId: `11${HASH}`,
    }),
    entry({ name: "\u{1F600}", mtimeNs: 0n }),
    entry({ name: "\uffee", mode: 0o5755 }),
    entry({
      name: "sub",
      kind: "directory",
      mode: 0o2770,
      mtimeNs: SECOND_NS + 7_000_000n,
      objectId: `k00${HASH}`,
      summary: summarize([], SECOND_NS + 5n),
    }),
  ]);
}

function sampleSnapshot(): Snapshot {
  return {
    source: { host: "cluster-a", user: "klio", path: "/pg/data" },
    description: "pgdata",
    startTimeNs: SECOND_NS + 1n,
    endTimeNs: SECOND_NS + 2n,
    incomplete: "",
    root: entry({
      name: "data",
      kind: "directory",
      mode: 0o700,
      mtimeNs: SECOND_NS + 9n,
      uid: 26,
      gid: 26,
      objectId: `Ik00${HASH}`,
      summary: summarize(sampleEntries(), SECOND_NS + 9n),
    }),
    tags: new Map([["tag:klio.io/tag", "backup-1"], ["tag:klio.io/content", "pgdata"]]),
    pins: ["b", "a"],
  };
}

Deno.test("encodeDirectory() gives the bytes of stock kopia", () => {
  const entries = sampleEntries();
  const summary = summarize(entries, SECOND_NS + 9n);
  assert.equal(fromUtf8(encodeDirectory({ entries, summary })), DIRECTORY + "\n");
  const empty = { entries: [], summary: summarize([], SECOND_NS + 5n) };
  assert.equal(fromUtf8(encodeDirectory(empty)), EMPTY_DIRECTORY + "\n");
});

Deno.test("decodeDirectory() reads what stock kopia wrote", () => {
  const entries = sampleEntries();
  assert.deepEqual(decodeDirectory(utf8(DIRECTORY)), {
    entries,
    summary: summarize(entries, SECOND_NS + 9n),
  });
  assert.deepEqual(decodeDirectory(utf8(EMPTY_DIRECTORY)).entries, []);
});

Deno.test("encodeSnapshot() gives the bytes of stock kopia, and decodeSnapshot() reads them", () => {
  const snapshot = sampleSnapshot();
  assert.equal(fromUtf8(encodeSnapshot(snapshot)), SNAPSHOT);
  assert.deepEqual(decodeSnapshot(utf8(SNAPSHOT)), {
    ...snapshot,
    tags: new Map([...snapshot.tags].toSorted()),
    pins: ["a", "b"],
  });
});

Deno.test("snapshotLabels() has source and tags, by which stock kopia finds a snapshot", () => {
  assert.deepEqual(snapshotLabels(sampleSnapshot()), {
    type: "snapshot",
    hostname: "cluster-a",
    username: "klio",
    path: "/pg/data",
    "tag:klio.io/tag": "backup-1",
    "tag:klio.io/content": "pgdata",
  });
});

Deno.test("encodeIndirect() leaves zeros out and ends in a newline, and decodeIndirect() reads it back", () => {
  const entries = [
    { start: 0, lengthBytes: 131072, objectId: `00${HASH}` },
    { start: 131072, lengthBytes: 1, objectId: `11${HASH}` },
  ];
  const text = `{"stream":"kopia:indirect","entries":[{"l":131072,"o":"00${HASH}"},` +
    `{"s":131072,"l":1,"o":"11${HASH}"}]}\n`;
  assert.equal(fromUtf8(encodeIndirect(entries)), text);
  assert.deepEqual(decodeIndirect(utf8(text)), entries);
});

Deno.test("decodeIndirect() refuses an index with a hole, an overlap or a negative length", () => {
  for (const piece of ['"s":5,"l":1', '"s":3,"l":1', '"s":4,"l":-1', '"s":4,"l":1.5']) {
    const text = `{"stream":"kopia:indirect","entries":[{"l":4,"o":"00"},{${piece},"o":"11"}]}`;
    assert.throws(() => decodeIndirect(utf8(text)), { name: "AppError", kind: "corruption" });
  }
});

Deno.test("parseObjectId() takes ids apart and refuses what is none", () => {
  assert.deepEqual(parseObjectId(indirectObjectId(indirectObjectId(`x00${HASH}`))), {
    indirection: 2,
    compressed: false,
    contentId: `x00${HASH}`,
  });
  assert.deepEqual(parseObjectId(`ZD00${HASH}`), {
    indirection: 0,
    compressed: true,
    contentId: `00${HASH}`,
  });
  for (const bad of ["", "I", "Z", "I0", "k", "00\n", `${"I".repeat(9)}00`, "X00", "0g"]) {
    assert.throws(() => parseObjectId(bad), { name: "AppError", kind: "protocol" }, bad);
  }
});

Deno.test("the decoders answer garbage and damaged documents with corruption only", () => {
  const documents = [
    DIRECTORY,
    SNAPSHOT,
    `{"stream":"kopia:indirect","entries":[{"l":1,"o":"00"}]}`,
  ];
  const decoders = [decodeDirectory, decodeSnapshot, decodeIndirect];
  const onlyCorruption = (bytes: Uint8Array) => {
    for (const decode of decoders) {
      try {
        decode(bytes);
      } catch (error) {
        assert.ok(error instanceof AppError && error.kind === "corruption", String(error));
      }
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), onlyCorruption));
  fc.assert(fc.property(fc.json(), (json) => onlyCorruption(utf8(json))));
  fc.assert(
    fc.property(fc.constantFrom(...documents), fc.nat(), fc.nat(255), (document, at, byte) => {
      const bytes = utf8(document);
      bytes[at % bytes.length] = byte;
      onlyCorruption(bytes);
      onlyCorruption(bytes.subarray(0, at % bytes.length));
    }),
    { numRuns: 500 },
  );
});
