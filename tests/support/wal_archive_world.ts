/**
 * A WAL archive on disks in memory and the moves that its tests make.
 *
 * @module
 */

import assert from "node:assert/strict";

import { type Bytes, concat, utf8 } from "../../src/base/bytes.ts";
import { AppError, failureKind } from "../../src/base/failure.ts";
import { SILENT } from "../../src/base/log.ts";
import { type Lsn, lsn, segmentName, type TimelineId, timelineId } from "../../src/domain/lsn.ts";
import { WalArchive } from "../../src/features/walarchive/mod.ts";
import type { WalAppendStream } from "../../src/ports/wal_server.ts";
import { FakeClock } from "./fake_clock.ts";
import { wal } from "./fake_wal.ts";
import { MemoryFiles } from "./memory_files.ts";
import { SeededRandom } from "./seeded_random.ts";
import { TRUSTING } from "./trusting_verification.ts";

/** Size of the smallest segment, which these tests use. */
export const MIB = 1 << 20;
/** The archive key. */
export const KEY = new Uint8Array(32).fill(1);
/** Where the archive is. */
export const ROOT = "/data/wal";
/** The cluster. */
export const WHO = { cluster: "pg", systemId: "7300000000000000001" };
/** Timeline 1. */
export const ONE = timelineId(1);
/** Timeline 2. */
export const TWO = timelineId(2);
const signal = new AbortController().signal;
/** For calls that nobody aborts. */
export const WAIT = { signal };

/** Name of a segment by number. */
export function name(segment: number, timeline: TimelineId = ONE): string {
  return segmentName(timeline, lsn(BigInt(segment) * BigInt(MIB)), MIB);
}

/** A position by segment number and offset. */
export function at(segment: number, offset = 0): Lsn {
  return lsn(BigInt(segment) * BigInt(MIB) + BigInt(offset));
}

/** A disk with an archive that has its key. */
export async function volume(): Promise<MemoryFiles> {
  const files = new MemoryFiles();
  await files.makeDirectory(ROOT);
  await files.writeFileAtomic(`${ROOT}/wal.key`, utf8("stands for the key"));
  return files;
}

let salts = 0;
/** Opens the archive, as after a restart. */
export function openArchive(files: MemoryFiles, log = SILENT): Promise<WalArchive> {
  const random = new SeededRandom(salts++);
  return WalArchive.openWithKey({
    files,
    clock: new FakeClock(),
    random,
    log,
    root: ROOT,
    beginVerification: TRUSTING,
  }, KEY);
}

/** Opens an append stream. */
export function appendAt(archive: WalArchive, start: Lsn, timeline = ONE, segmentSizeBytes = MIB) {
  return archive.append({ ...WHO, timeline, start, segmentSizeBytes }, WAIT);
}

/** Streams WAL from `start` and finishes. */
export async function stream(
  archive: WalArchive,
  range: { start: Lsn; length: number; timeline?: TimelineId },
): Promise<void> {
  await using append = await appendAt(archive, range.start, range.timeline);
  await append.send(range.start, wal(range.start, range.length, range.timeline), WAIT);
  await append.finish(WAIT);
}

/** The content of a WAL file. */
export async function read(archive: WalArchive, file: string): Promise<Bytes> {
  const blocks: Uint8Array[] = [];
  const opened = await archive.get({ cluster: WHO.cluster, name: file }, WAIT);
  for await (const block of opened.blocks) blocks.push(block);
  return concat(blocks);
}

/** Waits until everything before `position` is acknowledged. */
export async function acknowledged(append: WalAppendStream, position: Lsn): Promise<void> {
  for await (const durable of append.acknowledgements()) if (durable >= position) return;
  throw new Error(`the stream ended before ${position} was acknowledged`);
}

/** Asserts the kind of a failure and returns it. */
export async function rejectsWith(kind: string, work: Promise<unknown>): Promise<AppError> {
  let found: unknown;
  await assert.rejects(work, (error) => {
    found = error;
    assert.equal(failureKind(error), kind, String(error));
    return true;
  });
  assert.ok(found instanceof AppError);
  return found;
}

/** Start negotiation. */
export function start(archive: WalArchive, proposal: string): Promise<string> {
  return archive.requestStart({ ...WHO, proposal }, WAIT);
}

/** The parts as blocks of an upload; an error is thrown in its turn. */
export async function* blocksOf(
  ...parts: readonly (Uint8Array | Error)[]
): AsyncGenerator<Uint8Array> {
  for (const part of parts) {
    await Promise.resolve();
    if (part instanceof Error) throw part;
    yield part;
  }
}

/** Uploads these parts as one segment; an error among them breaks the upload. */
export function put(archive: WalArchive, file: string, ...parts: readonly (Uint8Array | Error)[]) {
  const blocks = blocksOf(...parts);
  return archive.putFile(
    { cluster: WHO.cluster, name: file, segmentSizeBytes: MIB, blocks },
    WAIT,
  );
}
