/**
 * Decoders of Kopia's at-rest format and of the documents in it. Clients write contents and manifests through our server,
 * and other programs write repositories that we read: all of it is foreign.
 *
 * @module
 */

import { concat, fromUtf8, utf8 } from "../../src/base/bytes.ts";
import { gzipSync } from "node:zlib";
import { parseGoTime } from "../../src/codec/go_json.ts";
import { contentCipher } from "../../src/codec/kopia/cipher.ts";
import { compress, decompress, gunzipBounded } from "../../src/codec/kopia/compression.ts";
import { contentIdOfKey, parseContentId } from "../../src/codec/kopia/content_id.ts";
import { decodeDirectory } from "../../src/codec/kopia/directory.ts";
import { computeEpochState } from "../../src/codec/kopia/epoch.ts";
import { contentHasher } from "../../src/codec/kopia/hash.ts";
import { encodeIndex, type IndexEntry, IndexImage } from "../../src/codec/kopia/index.ts";
import { decodeIndirect, encodeIndirect } from "../../src/codec/kopia/indirect.ts";
import { checkJson, decodeManifests, encodeManifests } from "../../src/codec/kopia/manifests.ts";
import { parseObjectId } from "../../src/codec/kopia/object_id.ts";
import {
  decodePostamble,
  encodePostamble,
  openLocalIndex,
  sealLocalIndex,
} from "../../src/codec/kopia/pack.ts";
import { openBlob, sealBlob } from "../../src/codec/kopia/sealed_blob.ts";
import { decodeSessionMarker, encodeSessionMarker } from "../../src/codec/kopia/session_marker.ts";
import { decodeSnapshot } from "../../src/codec/kopia/snapshot.ts";
import { readFormatDocument } from "../../src/codec/kopia/format.ts";
import { decodeBackupMetadata, encodeBackupMetadata } from "../../src/domain/backup.ts";
import { lsn, timelineId } from "../../src/domain/lsn.ts";
import type { Target } from "./harness.ts";
import { weightOf } from "./wire_targets.ts";

const OUTPUT_BYTES_MAX = 1 << 16;
const HASH = "112233445566778899aabbccddeeff";

const DIRECTORY = utf8(
  `{"stream":"kopia:directory","entries":[{"name":"sub","type":"d","mode":"020000770",` +
    `"mtime":"2023-11-14T22:13:20.007Z","obj":"k00${HASH}","summ":{"size":0,"files":0,"symlinks":0,` +
    `"dirs":1,"maxTime":"2023-11-14T22:13:20.000000005Z","numFailed":0}},{"name":"f","type":"f",` +
    `"mode":"0600","size":8192,"mtime":"2023-11-14T22:13:20Z","uid":26,"gid":26,"obj":"Ix00${HASH}"},` +
    `{"name":"l","type":"s","mode":"0777","size":4,"obj":"11${HASH}"}],"summary":{"size":8192,` +
    `"files":1,"symlinks":1,"dirs":2,"maxTime":"2023-11-14T22:13:20Z","numFailed":0}}`,
);

const SNAPSHOT = utf8(
  `{"id":"","source":{"host":"c","userName":"klio","path":"/pg/data"},"description":"pgdata",` +
    `"startTime":"2023-11-14T22:13:20.000000001Z","endTime":"2023-11-14T22:13:20Z","stats":{` +
    `"totalSize":8192,"fileCount":4,"errorCount":0},"rootEntry":{"name":"data","type":"d",` +
    `"mode":"0700","mtime":"2023-11-14T22:13:20Z","uid":26,"gid":26,"obj":"Ik00${HASH}","summ":{` +
    `"size":8192,"files":4,"symlinks":1,"dirs":2,"maxTime":"2023-11-14T22:13:20Z","numFailed":0}},` +
    `"tags":{"tag:a":"b"},"pins":["x"]}`,
);

const METADATA = utf8(encodeBackupMetadata({
  name: "backup-20260101000000",
  clusterName: "c",
  startLsn: lsn(0x2000028n),
  endLsn: lsn((1n << 64n) - 1n),
  startWal: "000000010000000000000002",
  endWal: "000000010000000000000003",
  timeline: timelineId(1),
  segmentSizeBytes: 16 << 20,
  backupLabel: "START WAL LOCATION: 0/2000028\n",
  tablespaceMap: "",
  dataDirectory: "/pg/data",
  tablespaces: [{ name: "t", oid: "16400", path: "/pg/t" }],
  startedAtSeconds: 1_700_000_000,
  stoppedAtSeconds: 1_700_000_009,
  systemId: "7300000000000000001",
  pgVersion: 170_002,
}));

const MANIFESTS = [
  {
    id: "0a",
    labels: { type: "snapshot" },
    modifiedNs: 1_735_787_045_100_000_000n,
    deleted: false,
    data: utf8('{"x": 12345678901234567890, "y": ["a", {"b": null}]}'),
  },
  { id: "0b", labels: {}, modifiedNs: 0n, deleted: true },
];

function indexEntry(id: string): IndexEntry {
  return {
    id,
    timestampSeconds: 1_700_000_000,
    packBlobId: `p${HASH}-s1`,
    packOffset: 32,
    packedLength: 128,
    originalLength: 100,
    deleted: false,
    compression: 0x1101,
    formatVersion: 3,
    encryptionKeyId: 0,
  };
}

const INDEX = encodeIndex([`00${HASH}`, `01${HASH}`, `ff${HASH}`].map(indexEntry));
const HASHER = contentHasher("HMAC-SHA256-128", new Uint8Array(32));
const CIPHER = contentCipher("CHACHA20-POLY1305-HMAC-SHA256", new Uint8Array(32));
const NONCE = new Uint8Array(12);
const LOCAL_INDEX = sealLocalIndex(
  INDEX,
  { random32: new Uint8Array(32), nonce: NONCE },
  HASHER,
  CIPHER,
);
const SEALED = sealBlob(
  { prefix: "xn0_", suffix: "s1-c1", plain: INDEX, nonce: NONCE },
  HASHER,
  CIPHER,
);

const FORMAT = utf8(JSON.stringify({
  format: {
    hash: "HMAC-SHA256-128",
    encryption: "CHACHA20-POLY1305-HMAC-SHA256",
    secret: "AAAA",
    masterKey: "AAAA",
    version: 3,
    maxPackSize: 20 << 20,
    indexVersion: 2,
    epochParameters: { Enabled: true, EpochRefreshFrequency: 1_200_000_000_000 },
    splitter: "FIXED-128K",
    requiredFeatures: [],
  },
}));

function readIndex(image: IndexImage): number {
  let weight = 0;
  for (const entry of image.entries()) weight += weightOf(entry);
  for (const entry of image.entriesWithPrefix("k")) weight += weightOf(entry);
  image.find(`00${HASH}`);
  return weight;
}

const STREAM = utf8("a long enough text, a long enough text, a long enough text ".repeat(50));

/** See the module comment. */
export const KOPIA_TARGETS: readonly Target[] = [
  {
    name: "directory document",
    kinds: ["corruption", "protocol"],
    samples: [DIRECTORY],
    decode: (input) => weightOf(decodeDirectory(input)),
  },
  {
    name: "snapshot document",
    kinds: ["corruption", "protocol"],
    samples: [SNAPSHOT],
    decode: (input) => weightOf(decodeSnapshot(input)),
  },
  {
    name: "backup metadata document",
    kinds: ["corruption"],
    samples: [METADATA],
    decode: (input) => weightOf(decodeBackupMetadata(input)),
  },
  {
    name: "object index",
    kinds: ["corruption"],
    samples: [encodeIndirect([
      { start: 0, lengthBytes: 131_072, objectId: `00${HASH}` },
      { start: 131_072, lengthBytes: 5, objectId: `01${HASH}` },
    ])],
    decode: (input) => weightOf(decodeIndirect(input)),
  },
  {
    name: "manifest content",
    kinds: ["corruption", "protocol"],
    samples: [encodeManifests(MANIFESTS)],
    decode: (input) => weightOf(decodeManifests(input, OUTPUT_BYTES_MAX)),
    outputBytesMax: 64 * OUTPUT_BYTES_MAX,
  },
  {
    name: "text of a manifest content",
    kinds: ["corruption", "protocol"],
    samples: [utf8(
      '{"entries":[{"id":"0a","labels":{"type":"t"},"modified":"2025-01-02T03:04:05.1Z",' +
        '"data":{"x": [1, "\\u005d", {}]}},{"id":"0b","modified":"1970-01-01T00:00:00Z","deleted":true}]}',
    )],
    decode: (input) => weightOf(decodeManifests(new Uint8Array(gzipSync(input)), OUTPUT_BYTES_MAX)),
  },
  {
    name: "manifest document of a client",
    kinds: ["protocol"],
    samples: [SNAPSHOT],
    decode: (input) => {
      checkJson(input);
      return 0;
    },
  },
  {
    name: "index image",
    kinds: ["corruption"],
    samples: [INDEX, encodeIndex([])],
    decode: (input) => readIndex(new IndexImage(input)),
  },
  {
    name: "postamble of a pack",
    kinds: ["corruption"],
    samples: [concat([
      new Uint8Array(50),
      encodePostamble({ iv: LOCAL_INDEX.iv, indexOffset: 4096, indexLength: 200 }),
    ])],
    decode: (input) => weightOf(decodePostamble(input)),
  },
  {
    name: "local index of a pack",
    kinds: ["corruption"],
    samples: [LOCAL_INDEX.bytes],
    decode: (input) => openLocalIndex({ iv: LOCAL_INDEX.iv, bytes: input }, HASHER, CIPHER).length,
  },
  {
    name: "sealed blob",
    kinds: ["corruption"],
    samples: [SEALED.bytes],
    decode: (input) => openBlob(SEALED.id, input, CIPHER, HASHER).length,
  },
  {
    name: "name of a sealed blob",
    kinds: ["corruption"],
    samples: [utf8(SEALED.id)],
    decode: (input) => openBlob(fromUtf8(input), SEALED.bytes, CIPHER, HASHER).length,
  },
  {
    name: "session marker",
    kinds: ["corruption", "protocol"],
    samples: [encodeSessionMarker({
      sessionId: "s1",
      startNs: 1n,
      checkpointNs: 2n,
      user: "u",
      host: "h",
    })],
    decode: (input) => weightOf(decodeSessionMarker(input)),
  },
  ...[0x1000, 0x1100, 0x1101, 0x1500].map((header): Target => ({
    name: `compressed content 0x${header.toString(16)}`,
    kinds: ["corruption", "config"],
    samples: [compress(header, STREAM) ?? STREAM],
    decode: (input) => decompress(input, OUTPUT_BYTES_MAX).length,
    outputBytesMax: OUTPUT_BYTES_MAX,
  })),
  {
    name: "gzip stream",
    kinds: ["corruption"],
    samples: [new Uint8Array(gzipSync(STREAM))],
    decode: (input) => gunzipBounded(input, OUTPUT_BYTES_MAX).length,
    outputBytesMax: OUTPUT_BYTES_MAX,
  },
  {
    name: "repository format document",
    kinds: ["corruption", "config"],
    samples: [FORMAT],
    decode: (input) => {
      let document: unknown;
      try {
        document = JSON.parse(fromUtf8(input));
      } catch {
        return 0; // what is no JSON does not come this far
      }
      return weightOf(readFormatDocument(document, new Uint8Array(32)));
    },
  },
  {
    name: "listing of index blobs",
    kinds: [],
    samples: [
      utf8("xe1\nxn0_ab-s1-c1\nxs0_cd-s2-c1\nxr0_1_ef-s3-c2\nxr0_1_01-s3-c2\nxw1700000000\n"),
    ],
    decode: (input) => {
      const ids = fromUtf8(input).split("\n");
      return weightOf(computeEpochState(ids.map((id, index) => ({ id, modifiedMs: index }))));
    },
  },
  {
    name: "object id",
    kinds: ["protocol"],
    samples: [utf8(`Ik00${HASH}`), utf8(`IIZ00${HASH}`), utf8(`00${HASH}`)],
    decode: (input) => weightOf(parseObjectId(fromUtf8(input))),
  },
  {
    name: "content id",
    kinds: ["protocol"],
    samples: [utf8(`k00${HASH}`), utf8(`00${HASH}`)],
    decode: (input) => weightOf(parseContentId(fromUtf8(input))),
  },
  {
    name: "content key",
    kinds: ["corruption"],
    samples: [concat([Uint8Array.of(0), Uint8Array.fromHex(`00${HASH}`)])],
    decode: (input) => weightOf(contentIdOfKey(input)),
  },
  {
    name: "time",
    kinds: ["protocol"],
    samples: [utf8("2023-11-14T22:13:20.000000001Z"), utf8("2023-11-14T22:13:20+05:30")],
    decode: (input) => weightOf(parseGoTime(fromUtf8(input))),
  },
];
