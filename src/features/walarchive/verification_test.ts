import assert from "node:assert/strict";
import { fromUtf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import type { LogFields } from "../../base/log.ts";
import { SILENT } from "../../base/log.ts";
import { type Lsn, lsnAdd } from "../../domain/lsn.ts";
import type { VerificationPolicy } from "../../domain/verification.ts";
import { FakeClock } from "../../../tests/support/fake_clock.ts";
import type { MemoryFiles } from "../../../tests/support/memory_files.ts";
import { SeededRandom } from "../../../tests/support/seeded_random.ts";
import {
  appendAt,
  at,
  KEY,
  MIB,
  name,
  ONE,
  ROOT,
  volume,
  WAIT,
  WHO,
} from "../../../tests/support/wal_archive_world.ts";
import { WalWriter } from "../../../tests/support/wal_writer.ts";
import { decodeVerdict } from "../../codec/walrecord/mod.ts";
import { verifyRecords, WalArchive } from "./mod.ts";

const CHUNK_BYTES = 10_000;

/** Two and a half segments of good WAL from segment 1 on. */
function goodWal(): { readonly bytes: Uint8Array<ArrayBuffer>; readonly writer: WalWriter } {
  const writer = new WalWriter({
    timeline: ONE,
    systemId: WHO.systemId,
    segmentSizeBytes: MIB,
    start: at(1),
    sizeBytesMax: 3 * MIB,
  });
  while (writer.position < at(3, MIB / 2)) writer.record(300 + writer.records.length % 1000);
  return { bytes: writer.bytes(), writer };
}

function open(
  files: MemoryFiles,
  policy: VerificationPolicy,
  errors: LogFields[] = [],
): Promise<WalArchive> {
  const log = {
    ...SILENT,
    error: (_message: string, fields: LogFields = {}) => void errors.push(fields),
  };
  return WalArchive.openWithKey({
    files,
    clock: new FakeClock(),
    random: new SeededRandom(7),
    log: SILENT,
    root: ROOT,
    beginVerification: verifyRecords({ policy, log }),
  }, KEY);
}

/** Streams `bytes` from segment 1 on; the last acknowledgement, and what ended the stream. */
async function stream(
  archive: WalArchive,
  bytes: Uint8Array,
): Promise<{ readonly acknowledged: Lsn; readonly failure: unknown }> {
  await using append = await appendAt(archive, at(1));
  let acknowledged = at(1);
  const listening = (async () => {
    for await (const position of append.acknowledgements()) acknowledged = position;
  })().catch((error) => error);
  let failure: unknown;
  try {
    for (let from = 0; from < bytes.length; from += CHUNK_BYTES) {
      await append.send(lsnAdd(at(1), from), bytes.slice(from, from + CHUNK_BYTES), WAIT);
    }
    await append.finish(WAIT);
  } catch (error) {
    failure = error;
  }
  await listening;
  return { acknowledged, failure };
}

async function stored(archive: WalArchive, file: string): Promise<Uint8Array> {
  const { blocks } = await archive.get({ cluster: WHO.cluster, name: file }, WAIT);
  const parts = await Array.fromAsync(blocks);
  return new Uint8Array(await new Blob(parts.map((part) => new Uint8Array(part))).arrayBuffer());
}

Deno.test("good WAL is acknowledged up to its last whole record, and every segment keeps its verdict", async () => {
  const files = await volume();
  await using archive = await open(files, "hold");
  await archive.requestStart({ ...WHO, proposal: name(1) }, WAIT);
  const { bytes, writer } = goodWal();
  const torn = bytes.subarray(0, bytes.length - 100);
  const { acknowledged, failure } = await stream(archive, torn);
  assert.equal(failure, undefined);
  assert.equal(acknowledged, writer.records.at(-1));
  const verdict = decodeVerdict(
    await files.readFile(`${ROOT}/pg/${name(1).slice(0, 16)}/${name(1)}.verdict.json`),
  );
  assert.equal(verdict.violation, undefined);
  assert.ok(verdict.records > 1000, String(verdict.records));
  assert.equal(verdict.firstRecord, writer.records[0]);
});

Deno.test("hold: the stream ends at the damaged record, and what lies before is stored and acknowledged", async () => {
  const files = await volume();
  const errors: LogFields[] = [];
  await using archive = await open(files, "hold", errors);
  await archive.requestStart({ ...WHO, proposal: name(1) }, WAIT);
  const { bytes, writer } = goodWal();
  const victim = writer.records.find((position) => position > at(2, MIB / 2)) ?? at(2);
  const bad = bytes.slice();
  const index = writer.offsetOf(victim) + 60;
  bad[index] = (bad[index] ?? 0) ^ 1;
  const { acknowledged, failure } = await stream(archive, bad);
  assert.ok(failure instanceof AppError);
  assert.equal(failure.kind, "corruption");
  assert.match(failure.message, /crc: saw/);
  assert.equal(acknowledged, victim);
  assert.deepEqual(errors.map((e) => [e["violation"], e["policy"]]), [["crc", "hold"]]);
  const partial = await stored(archive, `${name(2)}.partial`);
  const sizeBytes = Number(victim - at(2));
  assert.deepEqual(partial.subarray(0, sizeBytes), bytes.subarray(MIB, MIB + sizeBytes));

  const again = await stream(archive, bytes);
  assert.equal(
    again.failure,
    undefined,
    "the true bytes are taken, whatever was stored of the damaged record",
  );
  assert.equal(again.acknowledged, writer.position);
  assert.deepEqual(await stored(archive, name(2)), bytes.subarray(MIB, 2 * MIB));
});

Deno.test("hold: bytes that were acknowledged are not replaced by others, also good ones", async () => {
  const files = await volume();
  await using archive = await open(files, "hold");
  await archive.requestStart({ ...WHO, proposal: name(1) }, WAIT);
  const { bytes } = goodWal();
  assert.equal((await stream(archive, bytes)).failure, undefined);
  const other = new WalWriter({
    timeline: ONE,
    systemId: WHO.systemId,
    segmentSizeBytes: MIB,
    start: at(1),
    sizeBytesMax: 3 * MIB,
  });
  while (other.position < at(3, MIB / 2)) other.record(400);
  const { failure } = await stream(archive, other.bytes());
  assert.ok(failure instanceof AppError);
  assert.equal(failure.kind, "conflict");
});

Deno.test("warn: damage is told, kept in the verdict of its segment alone, and everything is acknowledged", async () => {
  const files = await volume();
  const errors: LogFields[] = [];
  await using archive = await open(files, "warn", errors);
  await archive.requestStart({ ...WHO, proposal: name(1) }, WAIT);
  const { bytes, writer } = goodWal();
  const bad = bytes.slice();
  const index =
    writer.offsetOf(writer.records.find((position) => position > at(1, MIB / 2)) ?? at(1)) + 60;
  bad[index] = (bad[index] ?? 0) ^ 1;
  const { acknowledged, failure } = await stream(archive, bad);
  assert.equal(failure, undefined);
  assert.equal(acknowledged, writer.position);
  assert.equal(errors.length, 1);
  const verdict = async (segment: number) =>
    decodeVerdict(
      await files.readFile(`${ROOT}/pg/${name(1).slice(0, 16)}/${name(segment)}.verdict.json`),
    );
  assert.equal((await verdict(1)).violation?.kind, "crc");
  assert.equal((await verdict(2)).violation, undefined);
});

Deno.test("an upload of a damaged segment is refused, and its good beginning is kept", async () => {
  const files = await volume();
  await using archive = await open(files, "hold");
  await archive.requestStart({ ...WHO, proposal: name(1) }, WAIT);
  const { bytes } = goodWal();
  const bad = bytes.slice(0, MIB);
  bad[MIB / 2] = (bad[MIB / 2] ?? 0) ^ 1;
  const upload = (content: Uint8Array) =>
    archive.putFile({
      cluster: WHO.cluster,
      name: name(1),
      segmentSizeBytes: MIB,
      blocks: (async function* () {
        for (let from = 0; from < content.length; from += CHUNK_BYTES) {
          yield await Promise.resolve(content.subarray(from, from + CHUNK_BYTES));
        }
      })(),
    }, WAIT);
  await assert.rejects(
    upload(bad),
    (error: unknown) => error instanceof AppError && error.kind === "corruption",
  );
  await assert.rejects(stored(archive, name(1)));
  assert.deepEqual(await upload(bytes.slice(0, MIB)), { writtenBytes: MIB });
  assert.match(
    fromUtf8(await files.readFile(`${ROOT}/pg/${name(1).slice(0, 16)}/${name(1)}.verdict.json`)),
    /"records":\d{3,}/,
  );
});
