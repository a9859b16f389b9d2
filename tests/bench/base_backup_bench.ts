/**
 * What a byte of a base backup costs in the server, one step at a time: 128 KiB contents, as our repositories cut them. Time per
 * iteration divided into the size in the name is the rate.
 *
 * @module
 */

import { compress, COMPRESSION_ZSTD_FASTEST } from "../../src/codec/kopia/compression.ts";
import { contentCipher } from "../../src/codec/kopia/cipher.ts";
import { contentId } from "../../src/codec/kopia/content_id.ts";
import { contentHasher } from "../../src/codec/kopia/hash.ts";
import { encodeIndex, IndexImage } from "../../src/codec/kopia/index.ts";
import { newSplitter } from "../../src/codec/kopia/splitter.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { rows } from "./data.ts";

const KIB = 1024;
const content = rows(128 * KIB);
const random = new SeededRandom(7);
const hasher = contentHasher("HMAC-SHA256-128", random.bytes(32));
const cipher = contentCipher("CHACHA20-POLY1305-HMAC-SHA256", random.bytes(32));
const hash = hasher.hash(content);
const nonce = random.bytes(12);

Deno.bench("hash, HMAC-SHA256-128, 128 KiB", { group: "content" }, () => {
  hasher.hash(content);
});

Deno.bench("compress, zstd level 1, 128 KiB", { group: "content" }, () => {
  compress(COMPRESSION_ZSTD_FASTEST, content);
});

Deno.bench("encrypt, ChaCha20-Poly1305, 128 KiB", { group: "content" }, () => {
  cipher.encrypt(content, hash, nonce);
});

Deno.bench("hash, compress, encrypt, 128 KiB", { group: "content", baseline: true }, () => {
  const name = hasher.hash(content);
  cipher.encrypt(compress(COMPRESSION_ZSTD_FASTEST, content) ?? content, name, nonce);
});

const file = rows(16 * KIB * KIB);
for (const name of ["FIXED-128K", "DYNAMIC-4M-BUZHASH"]) {
  const splitter = newSplitter(name);
  Deno.bench(`split, ${name}, 16 MiB`, { group: "split", baseline: name === "FIXED-128K" }, () => {
    splitter.reset();
    let pieces = 0;
    for (let rest = file; rest.length > 0; pieces++) {
      const end = splitter.next(rest);
      if (end === -1) break;
      rest = rest.subarray(end);
    }
    if (pieces === 0) throw new Error("the splitter cut nothing");
  });
}

const ENTRIES = 100_000; // 12 GiB of contents of 128 KiB
const ids = Array.from({ length: ENTRIES }, () => contentId("", random.bytes(16)));
const image = new IndexImage(encodeIndex(ids.map((id, number) => ({
  id,
  timestampSeconds: 1_760_000_000,
  packBlobId: `p${String(number >> 9).padStart(32, "0")}-s0123456789abcdef`,
  packOffset: (number & 511) * 40_000,
  packedLength: 40_000,
  originalLength: 128 * KIB,
  deleted: false,
  compression: COMPRESSION_ZSTD_FASTEST,
  formatVersion: 3,
  encryptionKeyId: 0,
}))));

let next = 0;
Deno.bench("find a content among 100,000", { group: "index" }, () => {
  next = (next + 7_919) % ENTRIES;
  if (image.find(ids[next] ?? "") === undefined) throw new Error("the index lost an entry");
});
