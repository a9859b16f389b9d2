/**
 * What a byte of WAL costs between PostgreSQL's socket and the server's disk, without either: taking messages off the replication
 * protocol, putting them into messages of the append stream and out again, making an archive file. Time per iteration
 * divided into the size in the name is the rate.
 *
 * @module
 */

import { concat, viewOf } from "../../src/base/bytes.ts";
import { AppendRequest } from "../../src/codec/messages/stream.ts";
import { BackendParser } from "../../src/codec/pgrepl/backend.ts";
import { decode } from "../../src/codec/protobuf/decode.ts";
import { encode } from "../../src/codec/protobuf/encode.ts";
import { decodeWalFile } from "../../src/codec/walfile/decoder.ts";
import { encodeWalFile } from "../../src/codec/walfile/encoder.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { rows } from "./data.ts";

const KIB = 1024;
const SEGMENT_BYTES = 16 * KIB * KIB;
const SOCKET_READ_BYTES = 64 * KIB;
const random = new SeededRandom(7);
const segment = rows(SEGMENT_BYTES);

/** XLogData messages of 128 KiB, as a walsender fills them. */
function copyStream(): Uint8Array {
  const messages: Uint8Array[] = [];
  const payloadBytes = 128 * KIB;
  for (let offset = 0; offset < SEGMENT_BYTES; offset += payloadBytes) {
    const head = new Uint8Array(30);
    const view = viewOf(head);
    head[0] = 0x64; // CopyData
    view.setUint32(1, head.length - 1 + payloadBytes);
    head[5] = 0x77; // XLogData: start, end of WAL, time
    view.setBigUint64(6, BigInt(SEGMENT_BYTES + offset));
    view.setBigUint64(14, BigInt(2 * SEGMENT_BYTES));
    messages.push(head, segment.subarray(offset, offset + payloadBytes));
  }
  return concat(messages);
}
const stream = copyStream();

Deno.bench("parse replication messages, 16 MiB in reads of 64 KiB", { group: "receive" }, () => {
  const parser = new BackendParser();
  let bytes = 0;
  for (let offset = 0; offset < stream.length; offset += SOCKET_READ_BYTES) {
    for (const message of parser.push(stream.subarray(offset, offset + SOCKET_READ_BYTES))) {
      if (message.kind === "data") bytes += message.bytes.length;
    }
  }
  if (bytes !== SEGMENT_BYTES) throw new Error(`the parser gave ${bytes} bytes`);
});

const data = { lsn: 0x1000000n, data: segment.subarray(0, 256 * KIB) };
const encoded = encode(AppendRequest, { request: { kind: "data", value: data } });

Deno.bench("encode an append request of 256 KiB", { group: "message" }, () => {
  encode(AppendRequest, { request: { kind: "data", value: data } });
});

Deno.bench("decode an append request of 256 KiB", { group: "message" }, () => {
  decode(AppendRequest, encoded);
});

const archiveKey = random.bytes(32);
const encoding = {
  archiveKey,
  salt: random.bytes(32),
  description: {
    systemId: "7300000000000000001",
    name: "000000010000000000000001",
    sizeBytes: SEGMENT_BYTES,
  },
};
const walFile = encodeWalFile(encoding, segment);

Deno.bench(
  "make an archive file of 16 MiB: compress, encrypt, authenticate",
  { group: "archive" },
  () => {
    encodeWalFile(encoding, segment);
  },
);

Deno.bench("read an archive file of 16 MiB", { group: "archive" }, () => {
  decodeWalFile(archiveKey, walFile);
});
