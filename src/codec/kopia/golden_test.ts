/**
 * Reads repositories that stock kopia wrote (`tests/testdata/kopia`): every blob, every pack, every content.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type Bytes, equalBytes, fromUtf8 } from "../../base/bytes.ts";
import { type ContentCipher, contentCipher } from "./cipher.ts";
import { decompress } from "./compression.ts";
import { contentId, parseContentId } from "./content_id.ts";
import { computeEpochState } from "./epoch.ts";
import { decodeBlobConfig, decodeFormatBlob, DEFAULT_EPOCHS } from "./format.ts";
import { type ContentHasher, contentHasher } from "./hash.ts";
import { encodeIndex, type IndexEntry, IndexImage, supersedes } from "./index.ts";
import { decodeManifests, type StoredManifest } from "./manifests.ts";
import { decodePostamble, openLocalIndex, paddingBytes } from "./pack.ts";
import { openBlob } from "./sealed_blob.ts";

interface Golden {
  readonly password: string;
  readonly blobs: ReadonlyMap<string, Bytes>;
}

interface Opened extends Golden {
  readonly hasher: ContentHasher;
  readonly cipher: ContentCipher;
  readonly images: readonly IndexImage[];
  readonly entries: ReadonlyMap<string, IndexEntry>;
}

function load(name: string): Golden {
  const url = new URL(`../../../tests/testdata/kopia/v0.22.3/${name}.json`, import.meta.url);
  const { password, blobs } = JSON.parse(Deno.readTextFileSync(url));
  const decoded = Object.entries<string>(blobs).map(
    ([id, text]) => [id, Uint8Array.fromBase64(text)] as const,
  );
  return { password, blobs: new Map(decoded) };
}

function blob(golden: Golden, id: string): Bytes {
  const bytes = golden.blobs.get(id);
  assert.ok(bytes !== undefined, `blob ${id} exists`);
  return bytes;
}

function open(name: string): Opened {
  const golden = load(name);
  const format = decodeFormatBlob(blob(golden, "kopia.repository"), golden.password);
  const hasher = contentHasher(format.hash, format.hmacSecret);
  const cipher = contentCipher(format.encryption, format.masterKey);
  const listing = [...golden.blobs.keys()].map((id) => ({ id, modifiedMs: 0 }));
  const images = computeEpochState(listing).indexBlobs
    .map((id) => new IndexImage(openBlob(id, blob(golden, id), cipher, hasher)));
  const entries = new Map<string, IndexEntry>();
  for (const entry of images.flatMap((image) => [...image.entries()])) {
    const known = entries.get(entry.id);
    if (known === undefined || supersedes(entry, known)) entries.set(entry.id, entry);
  }
  return { ...golden, hasher, cipher, images, entries };
}

function readContent(opened: Opened, entry: IndexEntry): Bytes {
  const pack = blob(opened, entry.packBlobId);
  const sealed = pack.subarray(entry.packOffset, entry.packOffset + entry.packedLength);
  const packed = opened.cipher.decrypt(sealed, parseContentId(entry.id).hash);
  return entry.compression === 0 ? packed : decompress(packed, entry.originalLength);
}

function manifestsOf(opened: Opened): StoredManifest[] {
  return [...opened.entries.values()].filter((e) => e.id.startsWith("m"))
    .flatMap((e) => decodeManifests(readContent(opened, e), 1 << 20));
}

const REPOSITORIES = [
  ["chacha", "HMAC-SHA256-128", "CHACHA20-POLY1305-HMAC-SHA256", "FIXED-128K"],
  ["epochs", "HMAC-SHA256-128", "CHACHA20-POLY1305-HMAC-SHA256", "FIXED-128K"],
  ["aes", "HMAC-SHA256", "AES256-GCM-HMAC-SHA256", "FIXED-4M"],
] as const;

for (const [name, hash, encryption, splitter] of REPOSITORIES) {
  const opened = open(name);

  Deno.test(`stock repository ${name}: format and settings are understood`, () => {
    const formatBlob = blob(opened, "kopia.repository");
    const format = decodeFormatBlob(formatBlob, opened.password);
    assert.deepEqual(
      [format.version, format.indexVersion, format.hash, format.encryption, format.splitter],
      [3, 2, hash, encryption, splitter],
    );
    assert.deepEqual(format.epochs, DEFAULT_EPOCHS);
    assert.equal(format.maxPackSizeBytes, 20 << 20);
    assert.deepEqual(
      decodeBlobConfig(blob(opened, "kopia.blobcfg"), opened.password, formatBlob),
      { retentionMode: "", retentionPeriodMs: 0 },
    );
  });

  Deno.test(`stock repository ${name}: our index images are its, byte by byte`, () => {
    const ids = [...opened.blobs.keys()].filter((id) => /^x[ns]/.test(id));
    assert.ok(ids.length >= 2);
    for (const id of ids) {
      const stock = openBlob(id, blob(opened, id), opened.cipher, opened.hasher);
      assert.ok(equalBytes(encodeIndex([...new IndexImage(stock).entries()]), stock), id);
    }
  });

  Deno.test(`stock repository ${name}: every content has the bytes its id promises`, () => {
    assert.ok(opened.entries.size >= 7);
    for (const entry of opened.entries.values()) {
      const plain = readContent(opened, entry);
      const { prefix } = parseContentId(entry.id);
      assert.equal(plain.length, entry.originalLength);
      assert.equal(contentId(prefix, opened.hasher.hash(plain)), entry.id);
    }
  });

  Deno.test(`stock repository ${name}: every pack describes itself`, () => {
    const packs = [...opened.blobs].filter(([id]) => /^[pq]/.test(id));
    assert.ok(packs.length >= 2);
    for (const [id, pack] of packs) {
      const { iv, indexOffset, indexLength } = decodePostamble(pack);
      const sealed = { iv, bytes: pack.slice(indexOffset, indexOffset + indexLength) };
      const local = new IndexImage(openLocalIndex(sealed, opened.hasher, opened.cipher));
      let endOfContents = 0;
      for (const entry of local.entries()) {
        const known = opened.images.map((image) => image.find(entry.id));
        assert.ok(known.some((e) => e !== undefined && !e.deleted && e.packBlobId === id));
        endOfContents = Math.max(endOfContents, entry.packOffset + entry.packedLength);
      }
      assert.equal(indexOffset, endOfContents + paddingBytes(endOfContents));
    }
  });

  Deno.test(`stock repository ${name}: manifests of snapshots are found`, () => {
    const snapshots = manifestsOf(opened).filter((m) => m.labels["type"] === "snapshot");
    assert.equal(snapshots.length, name === "epochs" ? 2 : 1);
    assert.ok(snapshots.some((m) => m.labels["tag:kind"] === "golden"));
    for (const snapshot of snapshots) {
      const document = JSON.parse(fromUtf8(snapshot.data ?? new Uint8Array()));
      assert.equal(document.source.path, "/data");
      assert.ok(opened.entries.has(document.rootEntry.obj));
    }
  });
}

Deno.test("stock repository chacha: tombstones of manifests and contents are seen", () => {
  const opened = open("chacha");
  const deleted = manifestsOf(opened).filter((m) => m.deleted);
  assert.equal(deleted.length, 1);
  assert.equal(deleted[0]?.data, undefined);
  const tombstones = [...opened.entries.values()].filter((e) => e.deleted);
  assert.deepEqual(tombstones.map((e) => e.id), ["01f57e65ff9ef632e9a295eac694ae35"]);
});

Deno.test("stock repository epochs: the index blobs are those that stock lists", () => {
  const listing = [...load("epochs").blobs.keys()].map((id) => ({ id, modifiedMs: 0 }));
  const { writeEpoch, watermarkSeconds, indexBlobs } = computeEpochState(listing);
  assert.equal(writeEpoch, 2);
  assert.equal(watermarkSeconds, 1795403529);
  // As printed by stock's `index list`.
  assert.deepEqual(indexBlobs, [
    "xs0_09a08df672be9d98e0ad5339c8439d7e-s38688d3d141c312b-c1",
    "xn2_246bf4f93f0a95662a7ab65ddae749ac-s3d4e865987a2018b147-c1",
    "xn2_bf694f6eb80053e08bc67a563dabc438-s23400b520d415863147-c1",
    "xn2_dc63e2be9f17377b4782f478185e2b74-s4a106170f8529d2b147-c1",
    "xn2_fd8213403afe7bcb400f06c7c11c6b3b-sbdb7ed589a4b62d8147-c1",
  ]);
});
