/**
 * Judges of the WAL itself: page and record headers as PostgreSQL (or a broken disk under it) sends them, unit frames as a
 * client compressed them, and the verdicts that we keep.
 *
 * @module
 */

import { type Bytes, concat } from "../../src/base/bytes.ts";
import { compressUnit, decompressUnit } from "../../src/codec/walfile/unit_frame.ts";
import {
  decodeVerdict,
  encodeVerdict,
  type SegmentVerdict,
  WalVerifier,
} from "../../src/codec/walrecord/mod.ts";
import { lsn, timelineId } from "../../src/domain/lsn.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { WalWriter } from "../support/wal_writer.ts";
import type { Target } from "./harness.ts";
import { BOMB, weightOf } from "./wire_targets.ts";

const MIB = 1 << 20;
const PLACE = {
  timeline: timelineId(1),
  systemId: "7710957193371977682",
  segmentSizeBytes: MIB,
  start: lsn(0x7_ffe0_0000n),
};
const CONTENT = new Uint8Array(100_000).map((_, index) => index >> 6);
const FRAME = concat([compressUnit(CONTENT)]);

/** Feeds the input in pieces; how much was found out about it. */
function verify(input: Bytes, random: SeededRandom): readonly SegmentVerdict[] {
  const verifier = new WalVerifier(PLACE);
  const verdicts: SegmentVerdict[] = [];
  for (let at = 0; at < input.length;) {
    const end = at + random.integer(1, random.pick([10, 1000, 200_000]));
    verdicts.push(...verifier.feed(input.subarray(at, end)));
    at = end;
  }
  if (verifier.verified > verifier.position) throw new RangeError("verified what was not fed");
  if (verifier.position !== PLACE.start + BigInt(input.length)) {
    throw new RangeError("lost its place");
  }
  return [...verdicts, verifier.verdict()];
}

function writtenWal(): Bytes {
  const writer = new WalWriter({ ...PLACE, sizeBytesMax: 3 * MIB });
  for (const sizeBytes of [24, 50, 9000, 33, 20_000, 100]) writer.record(sizeBytes);
  return writer.bytes();
}

/** Records whose checksums are right and whose types are not: what only a bug, not a bad disk, would write. */
function oddRecords(random: SeededRandom): Bytes {
  const writer = new WalWriter({ ...PLACE, sizeBytesMax: 3 * MIB });
  for (let left = random.integer(1, 20); left > 0; left--) {
    writer.record(random.pick([24, 25, 42, 42, 100, random.integer(24, 30_000)]), {
      info: random.pick([0, 0x40, 0xd0, random.integer(0, 255)]),
      manager: random.pick([0, 0, 10, random.integer(0, 255)]),
    });
  }
  return writer.bytes();
}

const [VERDICT] = verify(writtenWal(), new SeededRandom(1));

/** See the module comment. */
export const WAL_TARGETS: readonly Target[] = [
  {
    name: "WAL pages and records",
    kinds: [],
    samples: [writtenWal()],
    decode: (input, random) => weightOf(verify(input, random)),
  },
  {
    name: "WAL records of odd types with right checksums",
    kinds: [],
    samples: [Uint8Array.of(0)],
    decode: (_, random) => weightOf(verify(oddRecords(random), random)),
    outputBytesMax: 1 << 12,
    cost: 2,
  },
  {
    name: "WAL verdict document",
    kinds: ["corruption"],
    samples: [VERDICT === undefined ? FRAME : encodeVerdict(VERDICT)],
    decode: (input) => weightOf(decodeVerdict(input)),
  },
  {
    name: "unit frame of a client",
    kinds: ["corruption"],
    samples: [FRAME],
    decode: (input) => decompressUnit(input, CONTENT.length).length,
    outputBytesMax: CONTENT.length,
  },
];

/** Decompresses {@link BOMB}, said to hold 1 MiB. */
export function decompressBomb(): void {
  decompressUnit(BOMB, MIB);
}
