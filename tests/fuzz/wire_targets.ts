/**
 * Decoders of what comes over a wire from a peer, or from our WAL files, with valid samples.
 *
 * @module
 */

import { constants, zstdCompressSync } from "node:zlib";
import { type Bytes, concat, fromUtf8, utf8 } from "../../src/base/bytes.ts";
import * as kopiaMessages from "../../src/codec/messages/kopia_repository.ts";
import * as streamMessages from "../../src/codec/messages/stream.ts";
import * as walMessages from "../../src/codec/messages/wal.ts";
import { type BackendMessage, BackendParser } from "../../src/codec/pgrepl/backend.ts";
import { decode } from "../../src/codec/protobuf/decode.ts";
import type { MessageTable } from "../../src/codec/protobuf/schema.ts";
import { decodeWalFile, WalFileDecoder } from "../../src/codec/walfile/decoder.ts";
import { encodeWalFile } from "../../src/codec/walfile/encoder.ts";
import {
  applyKeystream,
  decodeDescription,
  decodeHeader,
  deriveKeys,
  DESCRIPTION_OPEN_BYTES,
  encodeDescription,
  encodeHeader,
  encodeLead,
  HEAD_BYTES,
  HEADER_BYTES,
  LEAD_OPEN_BYTES,
  MAC_BYTES,
  unitMac,
  type WalFileKeys,
} from "../../src/codec/walfile/format.ts";
import { decodeKeyFile, encodeKeyFile } from "../../src/codec/walfile/key_file.ts";
import { compressUnit } from "../../src/codec/walfile/unit_frame.ts";
import { parseBackupLabel } from "../../src/domain/backup_label.ts";
import { parseIdentity } from "../../src/domain/identity.ts";
import { parseLsn, parseWalName, timelineId } from "../../src/domain/lsn.ts";
import { parseTimelineHistory } from "../../src/domain/timeline_history.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import type { Target } from "./harness.ts";
import { messageSample } from "./mutate.ts";

/** Bytes that a decoded value holds, about: strings and numbers by content, views by nothing (they are of the input). */
export function weightOf(value: unknown): number {
  if (typeof value === "string") return 16 + value.length * 2;
  if (typeof value !== "object" || value === null) return 8;
  if (value instanceof Uint8Array) return 16;
  const inner = value instanceof Map ? [...value.entries()] : Object.entries(value);
  return inner.reduce((sum, [key, item]) => sum + weightOf(key) + weightOf(item), 16);
}

function isTable(value: unknown): value is MessageTable {
  return typeof value === "object" && value !== null && "fields" in value;
}

function protobufTargets(): Target[] {
  const modules = [kopiaMessages, streamMessages, walMessages];
  return modules.flatMap((module) => Object.values(module).filter(isTable)).map((table) => {
    const sample = (seed: number) => messageSample(new SeededRandom(seed), table);
    return {
      name: `message ${table.name}`,
      kinds: ["protocol"],
      samples: [sample(1), sample(2), sample(3), sample(4), sample(5), sample(6)],
      decode: (input) => weightOf(decode(table, input)),
    };
  });
}

function backendMessage(type: string, body: Uint8Array): Bytes {
  const head = new Uint8Array(5);
  head[0] = type.charCodeAt(0);
  new DataView(head.buffer).setUint32(1, body.length + 4);
  return concat([head, body]);
}

function walData(startHex: string, payload: Uint8Array): Bytes {
  const places = Uint8Array.fromHex(`${startHex}${startHex}${"00".repeat(8)}`);
  return backendMessage("d", concat([utf8("w"), places, payload]));
}

/** Feeds the input in pieces, as a socket does. */
function parseInPieces(input: Bytes, random: SeededRandom): number {
  const parser = new BackendParser();
  const messages: BackendMessage[] = [];
  for (let at = 0; at < input.length;) {
    const end = at + random.integer(1, random.pick([3, 50, 5000]));
    messages.push(...parser.push(input.subarray(at, end)));
    at = end;
  }
  return weightOf(messages);
}

const REPLICATION: Target = {
  name: "PostgreSQL replication protocol",
  kinds: ["protocol"],
  samples: [
    concat([
      backendMessage("W", Uint8Array.of(0, 0, 0)),
      walData("0000000003000000", new Uint8Array(300).fill(7)),
      backendMessage("d", concat([utf8("k"), new Uint8Array(16), Uint8Array.of(1)])),
      backendMessage("c", new Uint8Array()),
      backendMessage("C", utf8("COPY 0\0")),
      backendMessage("Z", utf8("I")),
    ]),
    concat([
      backendMessage("T", utf8("\0\x01systemid\0")),
      backendMessage("D", Uint8Array.of(0, 3, 0, 0, 0, 2, 65, 66, 255, 255, 255, 255, 0, 0, 0, 0)),
      backendMessage("E", utf8("SERROR\0C58P01\0Mrequested WAL segment has been removed\0\0")),
    ]),
    walData("fffffffffffff000", new Uint8Array(100)),
  ],
  decode: parseInPieces,
};

const ARCHIVE_KEY = new Uint8Array(32).fill(9);
const SALT = new Uint8Array(32).fill(4);
const DESCRIPTION = {
  systemId: "7300000000000000001",
  name: "000000010000000000000005",
  sizeBytes: 1 << 20,
};
const CONTENT = new Uint8Array(1 << 20).map((_, index) => index >> 12);
const WAL_FILE = encodeWalFile({
  archiveKey: ARCHIVE_KEY,
  salt: SALT,
  description: DESCRIPTION,
}, CONTENT);

function decodeWalFileInPieces(input: Bytes, random: SeededRandom): number {
  const decoder = new WalFileDecoder(ARCHIVE_KEY);
  let output = 0;
  for (let at = 0; at < input.length;) {
    const end = at + random.integer(1, random.pick([50, 5000, 1 << 20]));
    for (const part of decoder.push(input.subarray(at, end))) output += part.length;
    at = end;
  }
  decoder.finish();
  return output;
}

/** A file whose codes are right around any lead and frame: what a bug of a writer, not a bad disk, could leave. */
function authenticFile(lead: Uint8Array, frame: Uint8Array): Bytes {
  const keys = deriveKeys(ARCHIVE_KEY, SALT);
  const header = encodeHeader(SALT);
  const head = sealUnit(keys, {
    at: 0,
    previous: header,
    open: encodeDescription(DESCRIPTION),
    frame: new Uint8Array(),
  });
  const at = HEAD_BYTES - header.length;
  const unit = sealUnit(keys, { at, previous: head.mac, open: lead, frame });
  return concat([header, head.bytes, unit.bytes]);
}

function sealUnit(
  keys: WalFileKeys,
  unit: {
    readonly at: number;
    readonly previous: Uint8Array;
    readonly open: Uint8Array;
    readonly frame: Uint8Array;
  },
): { readonly bytes: Bytes; readonly mac: Bytes } {
  const parts = [unit.open, new Uint8Array(MAC_BYTES), unit.frame];
  const [open = unit.open, stream = unit.open, frame = unit.frame] = applyKeystream(
    keys,
    unit.at,
    parts,
  );
  const mac = unitMac(keys, unit.previous, [open, frame]);
  const secret = mac.map((byte, index) => byte ^ (stream[index] ?? 0));
  return { bytes: concat([open, secret, frame]), mac };
}

const FRAME = concat([compressUnit(CONTENT)]);
/** One frame with a checksum, as it should be, of 64 MiB. */
export const BOMB: Bytes = concat([
  zstdCompressSync(new Uint8Array(64 << 20), {
    params: { [constants.ZSTD_c_checksumFlag]: 1 },
    chunkSize: 1 << 20,
  }),
]);

/** What is read in one piece always has its length. */
function fixed(input: Bytes, length: number): Bytes {
  const whole = new Uint8Array(length);
  whole.set(input.subarray(0, length));
  return whole;
}

const WAL_FILES: readonly Target[] = [
  {
    name: "WAL file",
    kinds: ["corruption"],
    samples: [WAL_FILE],
    decode: decodeWalFileInPieces,
    outputBytesMax: CONTENT.length,
  },
  {
    name: "WAL file with right codes around a wrong frame",
    kinds: ["corruption"],
    samples: [FRAME],
    decode: (frame) => {
      const lead = encodeLead({ frameBytes: frame.length, endOffset: CONTENT.length });
      return decodeWalFile(ARCHIVE_KEY, authenticFile(lead, frame)).content.length;
    },
    outputBytesMax: CONTENT.length,
    cost: 4,
  },
  {
    name: "WAL file with right codes around a wrong lead",
    kinds: ["corruption"],
    samples: [encodeLead({ frameBytes: FRAME.length, endOffset: CONTENT.length })],
    decode: (lead) => {
      const file = authenticFile(fixed(lead, LEAD_OPEN_BYTES), FRAME);
      return decodeWalFile(ARCHIVE_KEY, file).content.length;
    },
    outputBytesMax: CONTENT.length,
    cost: 4,
  },
  {
    name: "header of a WAL file",
    kinds: ["corruption"],
    samples: [encodeHeader(SALT)],
    decode: (input) => weightOf(decodeHeader(fixed(input, HEADER_BYTES))),
  },
  {
    name: "description of a WAL file",
    kinds: ["corruption"],
    samples: [encodeDescription(DESCRIPTION)],
    decode: (input) => weightOf(decodeDescription(fixed(input, DESCRIPTION_OPEN_BYTES))),
  },
  {
    name: "archive key file",
    kinds: ["corruption", "permission"],
    samples: [utf8(encodeKeyFile(ARCHIVE_KEY, { password: "x", salt: SALT.slice(0, 8) }))],
    decode: (input) => decodeKeyFile(fromUtf8(input), { password: "x" }).length,
    cost: 300, // its key derivation is slow on purpose
  },
];

const HISTORY = utf8("1\t0/5000060\tno recovery target specified\n\n2\t1/AB000000\tx # y\n");
const LABEL = utf8(
  "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000080\n" +
    "BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-01-01 00:00:00 UTC\n" +
    "LABEL: backup-1\nSTART TIMELINE: 1\n",
);

const TEXTS: readonly Target[] = [
  {
    name: "timeline history",
    kinds: ["corruption"],
    samples: [HISTORY],
    decode: (input) => weightOf(parseTimelineHistory(timelineId(3), fromUtf8(input))),
  },
  {
    name: "backup label",
    kinds: ["protocol"],
    samples: [LABEL],
    decode: (input) => weightOf(parseBackupLabel(fromUtf8(input))),
  },
  {
    name: "WAL file name",
    kinds: ["usage"],
    samples: [
      utf8("00000001000000000000000A"),
      utf8("00000001000000000000000A.partial"),
      utf8("00000002.history"),
      utf8("00000001000000000000000A.00000028.backup"),
    ],
    decode: (input) => weightOf(parseWalName(fromUtf8(input))),
  },
  {
    name: "LSN",
    kinds: ["usage"],
    samples: [utf8("0/3000028"), utf8("FFFFFFFF/FFFFFFFF")],
    decode: (input) => weightOf(parseLsn(fromUtf8(input))),
  },
  {
    name: "certificate name",
    kinds: ["permission"],
    samples: [utf8("klio@cluster-a")],
    decode: (input) => weightOf(parseIdentity(fromUtf8(input))),
  },
];

/** See the module comment. */
export const WIRE_TARGETS: readonly Target[] = [
  ...protobufTargets(),
  REPLICATION,
  ...WAL_FILES,
  ...TEXTS,
];

/** A unit that claims 1 MiB and inflates to 64 MiB. */
export const WAL_BOMB: Bytes = authenticFile(
  encodeLead({ frameBytes: BOMB.length, endOffset: CONTENT.length }),
  BOMB,
);
/** Decodes {@link WAL_BOMB}. */
export function decodeWalBomb(): void {
  decodeWalFile(ARCHIVE_KEY, WAL_BOMB);
}
