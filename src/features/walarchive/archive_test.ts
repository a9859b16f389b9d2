import assert from "node:assert/strict";
import { constants, zstdCompressSync } from "node:zlib";

import { equalBytes, fromUtf8, utf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { SILENT } from "../../base/log.ts";
import { lsnAdd, parseLsn, timelineId } from "../../domain/lsn.ts";
import { FakeClock } from "../../../tests/support/fake_clock.ts";
import { wal } from "../../../tests/support/fake_wal.ts";
import { MemoryFiles } from "../../../tests/support/memory_files.ts";
import { SeededRandom } from "../../../tests/support/seeded_random.ts";
import {
  acknowledged,
  appendAt,
  at,
  blocksOf,
  MIB,
  name,
  ONE,
  openArchive,
  put,
  read,
  rejectsWith,
  ROOT,
  start,
  stream,
  TWO,
  volume,
  WAIT,
  WHO,
} from "../../../tests/support/wal_archive_world.ts";
import { compressUnit } from "../../codec/walfile/unit_frame.ts";
import { WalArchive } from "./mod.ts";
import { TRUSTING } from "../../../tests/support/trusting_verification.ts";

Deno.test("appended WAL is acknowledged, crosses segments and is read back", async () => {
  const files = await volume();
  await using archive = await openArchive(files);
  await using append = await appendAt(archive, at(3));
  const bytes = wal(at(3), 2 * MIB + 5000);
  for (let done = 0; done < bytes.length; done += 300_000) {
    await append.send(lsnAdd(at(3), done), bytes.subarray(done, done + 300_000), WAIT);
  }
  await acknowledged(append, at(5, 5000));
  await append.finish(WAIT);
  assert.deepEqual(await read(archive, name(3)), bytes.subarray(0, MIB));
  assert.deepEqual(await read(archive, name(4)), bytes.subarray(MIB, 2 * MIB));
  assert.deepEqual(await read(archive, `${name(5)}.partial`), bytes.subarray(2 * MIB));
  await rejectsWith("not_found", read(archive, name(5)));
  const [summary] = await archive.summary(WAIT);
  assert.equal(summary?.segments, 2);
  assert.equal(summary?.rawBytes, bytes.length);
  assert.equal(summary?.durable, at(5, 5000));
  assert.ok((summary?.storedBytes ?? 0) > 0);
});

Deno.test("frames made by the sender are stored as they are, between WAL that the archive compresses", async () => {
  const files = await volume();
  await using archive = await openArchive(files);
  const bytes = wal(at(3), MIB);
  {
    await using append = await appendAt(archive, at(3));
    let framesBytes = 0;
    for (const [from, to] of [[0, 100], [100, 400_000], [400_000, 400_001], [400_001, MIB]]) {
      const part = bytes.slice(from, to);
      // The strongest level: none that the archive itself would use.
      const params = {
        [constants.ZSTD_c_compressionLevel]: 19,
        [constants.ZSTD_c_checksumFlag]: 1,
      };
      const frame = part.length < 8192 ? undefined : zstdCompressSync(part, { params });
      framesBytes += frame?.length ?? 0;
      const options = frame === undefined ? WAIT : { ...WAIT, frame };
      await append.send(at(3, from), part, options);
    }
    await append.finish(WAIT);
    const stored = await files.stat(`${ROOT}/pg/${name(3).slice(0, 16)}/${name(3)}`);
    const others = stored.sizeBytes - framesBytes;
    assert.ok(others > 0 && others < 1000, `${stored.sizeBytes} stored, frames ${framesBytes}`);
  }
  assert.deepEqual(await read(archive, name(3)), bytes);
  await using again = await openArchive(files);
  await using append = await appendAt(again, at(3));
  await append.send(at(3), bytes, WAIT); // the same WAL in other pieces is the same
  await append.finish(WAIT);
  const other = bytes.slice(0, 10_000);
  other[9_999] = (other[9_999] ?? 0) ^ 1;
  await using third = await appendAt(again, at(3));
  await third.send(at(3), other, { ...WAIT, frame: compressUnit(other) });
  await rejectsWith("conflict", third.finish(WAIT));
});

Deno.test("start negotiation: proposal, partial again, next after complete, gap end", async () => {
  await using archive = await openArchive(await volume());
  assert.equal(await start(archive, name(7)), name(7));
  assert.equal(await start(archive, name(8)), name(8));
  await stream(archive, { start: at(8), length: 100 });
  assert.equal(await start(archive, name(20)), name(8));
  await stream(archive, { start: at(8), length: MIB });
  assert.equal(await start(archive, name(20)), name(9));
  const reset = { ...WHO, proposal: name(30) };
  assert.equal(await archive.resetStream(reset, WAIT), name(30));
  assert.equal(await start(archive, name(20)), name(30));
  const { gaps } = await archive.metadata(WHO.cluster, WAIT);
  assert.deepEqual(gaps.map(({ start, end }) => [start, end]), [[name(8), name(30)]]);
  await stream(archive, { start: at(30), length: MIB });
  assert.equal(await start(archive, name(30)), name(31));
  assert.equal((await archive.metadata(WHO.cluster, WAIT)).gaps.length, 1);
});

Deno.test("start negotiation follows a switch that the old primary overran", async () => {
  await using archive = await openArchive(await volume());
  await start(archive, name(5));
  await stream(archive, { start: at(5), length: 3 * MIB });
  assert.equal(await start(archive, name(6, TWO)), name(8));
  const content = utf8("1\t0/680000\tno recovery target specified\n");
  await archive.putHistory({ ...WHO, timeline: TWO, content }, WAIT);
  assert.equal(await start(archive, name(6, TWO)), name(6, TWO));
  // A grandchild whose history is known leads to the child first.
  const THREE = timelineId(3);
  const both = utf8("1\t0/680000\tone\n2\t0/A80000\ttwo\n");
  await archive.putHistory({ ...WHO, timeline: THREE, content: both }, WAIT);
  assert.equal(await start(archive, name(9, THREE)), name(6, TWO));
  await stream(archive, { start: at(6), length: MIB, timeline: TWO });
  assert.equal(await start(archive, name(7, TWO)), name(7, TWO));
  assert.equal(await start(archive, name(9, THREE)), name(7, TWO));
  assert.deepEqual((await archive.metadata(WHO.cluster, WAIT)).gaps, []);
});

Deno.test("the last segment of a log id is followed by the first of the next", async () => {
  await using archive = await openArchive(await volume());
  await stream(archive, { start: parseLsn("1/FFF00000"), length: MIB });
  assert.equal(await start(archive, name(1)), "000000010000000200000000");
});

Deno.test("another system identifier is refused on every call and changes nothing", async () => {
  await using archive = await openArchive(await volume());
  await start(archive, name(1));
  const other = { cluster: WHO.cluster, systemId: "42" };
  await rejectsWith("conflict", archive.requestStart({ ...other, proposal: name(1) }, WAIT));
  await rejectsWith("conflict", archive.resetStream({ ...other, proposal: name(1) }, WAIT));
  const content = utf8("1\t0/1\tx\n");
  await rejectsWith("conflict", archive.putHistory({ ...other, timeline: TWO, content }, WAIT));
  const request = { ...other, timeline: ONE, start: at(1), segmentSizeBytes: MIB };
  await rejectsWith("conflict", archive.append(request, WAIT));
  await stream(archive, { start: at(1), length: 10 });
  await rejectsWith("conflict", appendAt(archive, at(2), ONE, 2 * MIB));
  await rejectsWith("usage", start(archive, "00000002.history"));
  await rejectsWith("usage", appendAt(archive, at(1, 1)));
  await rejectsWith("usage", appendAt(archive, at(1), ONE, 3 * MIB));
  const bad = { cluster: "..", systemId: "1", proposal: name(1) };
  await rejectsWith("usage", archive.requestStart(bad, WAIT));
  await rejectsWith("usage", archive.requestStart({ ...bad, cluster: "wal.key" }, WAIT));
  await rejectsWith("usage", archive.requestStart({ ...bad, cluster: "a", systemId: "x" }, WAIT));
});

Deno.test("a second writer is told who is there; it gets in when the first is gone", async () => {
  await using archive = await openArchive(await volume());
  await using first = await appendAt(archive, at(1));
  const error = await rejectsWith("conflict", appendAt(archive, at(1)));
  assert.match(error.message, /append stream on timeline 1 from 0\/100000 .* since 2026-/);
  await rejectsWith("conflict", put(archive, name(1), wal(at(1), 10)));
  await first[Symbol.asyncDispose]();
  await first[Symbol.asyncDispose]();
  await stream(archive, { start: at(1), length: 10 });
});

Deno.test("bytes out of order are refused, the stream goes on", async () => {
  await using archive = await openArchive(await volume());
  await using append = await appendAt(archive, at(1));
  await append.send(at(1), wal(at(1), 512), WAIT);
  await rejectsWith("protocol", append.send(at(1), wal(at(1), 512), WAIT));
  await rejectsWith("protocol", append.send(at(1, 1024), wal(at(1), 512), WAIT));
  await append.send(at(1, 512), wal(at(1, 512), 512), WAIT);
  await append.finish(WAIT);
  assert.deepEqual(await read(archive, `${name(1)}.partial`), wal(at(1), 1024));
});

Deno.test("streaming again compares, keeps what is longer and adds what is new", async () => {
  const files = await volume();
  await using archive = await openArchive(files);
  await stream(archive, { start: at(1), length: 3000 });
  await stream(archive, { start: at(1), length: 1000 });
  assert.deepEqual(await read(archive, `${name(1)}.partial`), wal(at(1), 3000));
  await stream(archive, { start: at(1), length: MIB + 10 });
  assert.deepEqual(await read(archive, name(1)), wal(at(1), MIB));
  await stream(archive, { start: at(1), length: MIB + 700 });
  assert.deepEqual(await read(archive, `${name(2)}.partial`), wal(at(2), 700));
  const listed = [...await files.list(`${ROOT}/pg/${name(1).slice(0, 16)}`)].sort();
  assert.deepEqual(listed, [name(1), `${name(2)}.partial`]);
});

Deno.test("other content under a stored name is a conflict and changes nothing", async () => {
  await using archive = await openArchive(await volume());
  await stream(archive, { start: at(1), length: MIB + 2000 });
  for (const [segment, wrongAt] of [[1, 0], [1, MIB - 1], [2, 1999]] as const) {
    await using append = await appendAt(archive, at(segment));
    const bytes = wal(at(segment), MIB);
    bytes[wrongAt] = (bytes[wrongAt] ?? 0) ^ 1;
    await append.send(at(segment), bytes, WAIT);
    await rejectsWith("conflict", append.finish(WAIT));
    await rejectsWith("conflict", acknowledged(append, at(segment + 1)));
    await rejectsWith("conflict", append.send(at(segment + 1), wal(at(1), 1), WAIT));
  }
  assert.deepEqual(await read(archive, name(1)), wal(at(1), MIB));
  assert.deepEqual(await read(archive, `${name(2)}.partial`), wal(at(2), 2000));
});

Deno.test("a hole is recorded before the WAL after it is stored, once and loudly", async () => {
  const errors: string[] = [];
  const log = { ...SILENT, error: (message: string) => void errors.push(message), with: () => log };
  await using archive = await openArchive(await volume(), log);
  await stream(archive, { start: at(1), length: 100 });
  await stream(archive, { start: at(4), length: 100 });
  await stream(archive, { start: at(4), length: 200 });
  await stream(archive, { start: at(4), length: 100, timeline: TWO });
  const { gaps } = await archive.metadata(WHO.cluster, WAIT);
  assert.deepEqual(gaps.map(({ start, end }) => [start, end]), [[`${name(1)}.partial`, name(4)]]);
  assert.equal(errors.length, 1);
  await put(archive, name(9, TWO), wal(at(9), 10, TWO));
  const after = (await archive.metadata(WHO.cluster, WAIT)).gaps.at(-1);
  assert.deepEqual([after?.start, after?.end], [`${name(4, TWO)}.partial`, name(9, TWO)]);
});

Deno.test("an append that is opened and closed without bytes leaves nothing", async () => {
  await using archive = await openArchive(await volume());
  await stream(archive, { start: at(1), length: 100 });
  {
    await using append = await appendAt(archive, at(9));
    await append.finish(WAIT);
    for await (const durable of append.acknowledgements()) assert.fail(String(durable));
  }
  assert.deepEqual((await archive.metadata(WHO.cluster, WAIT)).gaps, []);
  assert.equal(await start(archive, name(9)), name(1));
});

Deno.test("putFile: whole, partial, again, shorter, other content, too long", async () => {
  await using archive = await openArchive(await volume());
  await rejectsWith("not_found", put(archive, name(1), wal(at(1), 10)));
  await start(archive, name(1));
  const whole = wal(at(1), MIB);
  assert.deepEqual(await put(archive, name(1), whole.subarray(0, 3000)), { writtenBytes: 3000 });
  await put(archive, name(1), whole.subarray(0, 1000));
  assert.deepEqual(await read(archive, `${name(1)}.partial`), whole.subarray(0, 3000));
  const other = whole.slice(0, 5000);
  other[2999] = (other[2999] ?? 0) ^ 1;
  await rejectsWith("conflict", put(archive, name(1), other));
  assert.deepEqual(await read(archive, `${name(1)}.partial`), whole.subarray(0, 3000));
  const rest = [whole.subarray(0, 700_000), new Uint8Array(0), whole.subarray(700_000)];
  assert.deepEqual(await put(archive, name(1), ...rest), { writtenBytes: MIB });
  assert.deepEqual(await put(archive, name(1), whole), { writtenBytes: MIB });
  await rejectsWith("conflict", put(archive, name(1), other));
  await rejectsWith("protocol", put(archive, name(2), wal(at(2), MIB), new Uint8Array(1)));
  await put(archive, name(3));
  assert.deepEqual(await read(archive, name(1)), whole);
  await rejectsWith("not_found", read(archive, `${name(3)}.partial`));
});

Deno.test("putFile keeps what arrived before the upload broke", async () => {
  await using archive = await openArchive(await volume());
  await start(archive, name(1));
  const broken = new AppError("repository", "Receive upload: connection lost");
  await rejectsWith("repository", put(archive, name(1), wal(at(1), 2000), broken));
  assert.deepEqual(await read(archive, `${name(1)}.partial`), wal(at(1), 2000));
});

Deno.test("history and backup label files are stored whole, once, and never changed", async () => {
  await using archive = await openArchive(await volume());
  const content = utf8("1\t0/3000000\tno recovery target specified\n");
  const request = { ...WHO, timeline: TWO, content };
  await archive.putHistory(request, WAIT);
  await archive.putHistory(request, WAIT);
  assert.deepEqual(await read(archive, "00000002.history"), content);
  const other = utf8("1\t0/4000000\tno recovery target specified\n");
  await rejectsWith("conflict", archive.putHistory({ ...request, content: other }, WAIT));
  const label = `${name(1)}.00000028.backup`;
  const upload = (file: string, size: number, ...parts: Uint8Array[]) => {
    const blocks = blocksOf(...parts);
    return archive.putFile({ cluster: "pg", name: file, segmentSizeBytes: size, blocks }, WAIT);
  };
  await upload(label, 5, utf8("lab"), utf8("el"));
  assert.equal(fromUtf8(await read(archive, label)), "label");
  await upload("00000002.history", content.length, content);
  await rejectsWith("protocol", upload("00000003.history", 9, utf8("short")));
  await rejectsWith("exhausted", upload("00000003.history", MIB, new Uint8Array(MIB + 1)));
  await rejectsWith("not_found", read(archive, "00000003.history"));
});

Deno.test("not_found is said only while the archive's volume is proven to be there", async () => {
  const files = await volume();
  await using archive = await openArchive(files);
  await rejectsWith("not_found", archive.metadata("pg", WAIT));
  await rejectsWith("not_found", read(archive, name(1)));
  await start(archive, name(1));
  await rejectsWith("not_found", read(archive, name(1)));
  await files.rename(ROOT, "/data/unmounted");
  await files.makeDirectory(ROOT);
  await rejectsWith("repository", read(archive, name(1)));
  await rejectsWith("repository", archive.metadata("pg", WAIT));
  await rejectsWith("repository", start(archive, name(1)));
  await files.remove(ROOT);
  await rejectsWith("repository", read(archive, name(1)));
  await files.rename("/data/unmounted", ROOT);
  files.setFault({ kind: "permission", path: name(1) });
  await rejectsWith("repository", read(archive, name(1)));
});

Deno.test("a partial that became complete meanwhile is served under its partial name", async () => {
  await using archive = await openArchive(await volume());
  await stream(archive, { start: at(1), length: MIB });
  assert.deepEqual(await read(archive, `${name(1)}.partial`), wal(at(1), MIB));
});

Deno.test("a damaged or exchanged file is corruption, a torn partial ends where it can be verified", async () => {
  const files = await volume();
  await using archive = await openArchive(files);
  await stream(archive, { start: at(1), length: 3 * MIB });
  const directory = `${ROOT}/pg/${name(1).slice(0, 16)}`;
  const content = await files.readFile(`${directory}/${name(1)}`);
  content[content.length - 1] = (content[content.length - 1] ?? 0) ^ 1;
  await files.writeFileAtomic(`${directory}/${name(1)}`, content);
  await rejectsWith("corruption", read(archive, name(1)));
  const exchanged = await files.readFile(`${directory}/${name(2)}`);
  await files.writeFileAtomic(`${directory}/${name(3)}`, exchanged);
  await rejectsWith("corruption", read(archive, name(3)));
  await files.writeFileAtomic(`${directory}/${name(2)}`, exchanged.subarray(0, 900));
  await rejectsWith("corruption", read(archive, name(2)));
  await using append = await appendAt(archive, at(4));
  for (const offset of [0, 4096]) {
    await append.send(at(4, offset), wal(at(4, offset), 4096), WAIT);
    await acknowledged(append, at(4, offset + 4096));
  }
  await append.finish(WAIT);
  const partial = `${directory}/${name(4)}.partial`;
  const torn = (await files.readFile(partial)).slice(0, -1);
  await files.writeFileAtomic(partial, torn);
  assert.deepEqual(await read(archive, `${name(4)}.partial`), wal(at(4), 4096));
  await stream(archive, { start: at(4), length: 9000 });
  assert.deepEqual(await read(archive, `${name(4)}.partial`), wal(at(4), 9000));
  await files.writeFileAtomic(partial, torn.subarray(0, 100));
  await rejectsWith("corruption", stream(archive, { start: at(4), length: 9000 }));
  assert.deepEqual(await files.readFile(partial), torn.slice(0, 100));
});

Deno.test("opening removes what a crashed writer left aside and superseded partials, nothing else", async () => {
  const files = await volume();
  {
    await using archive = await openArchive(files);
    await stream(archive, { start: at(1), length: MIB + 10 });
  }
  const directory = `${ROOT}/pg/${name(1).slice(0, 16)}`;
  await files.writeFileAtomic(`${directory}/${name(1)}.partial`, utf8("x"));
  await files.writeFileAtomic(`${directory}/${name(2)}.partial.tmp.0123abcd`, utf8("x"));
  await files.writeFileAtomic(`${ROOT}/pg/cluster.json.tmp.0123abcd`, utf8("x"));
  await files.writeFileAtomic(`${ROOT}/wal.key.tmp.0123abcd`, utf8("x"));
  await files.writeFileAtomic(`${directory}/notes.txt`, utf8("x"));
  await using _archive = await openArchive(files);
  assert.deepEqual(
    [...await files.list(directory)].sort(),
    [name(1), `${name(2)}.partial`, "notes.txt"],
  );
  assert.deepEqual([...await files.list(`${ROOT}/pg`)].sort(), [
    name(1).slice(0, 16),
    "cluster.json",
  ]);
  assert.deepEqual([...await files.list(ROOT)].sort(), ["pg", "wal.key"]);
});

Deno.test("closeBackup names what is missing and bounds what it looks at", async () => {
  await using archive = await openArchive(await volume());
  await stream(archive, { start: at(2), length: 2 * MIB + 10 });
  const range = {
    cluster: "pg",
    backupName: "b",
    timeline: ONE,
    startWal: name(2),
    endWal: name(3),
    segmentSizeBytes: MIB,
  };
  assert.deepEqual(await archive.closeBackup(range, WAIT), []);
  const wider = { ...range, startWal: name(1), endWal: name(4) };
  assert.deepEqual(await archive.closeBackup(wider, WAIT), [name(1), name(4)]);
  await rejectsWith("usage", archive.closeBackup({ ...range, segmentSizeBytes: 0 }, WAIT));
  await rejectsWith("usage", archive.closeBackup({ ...range, startWal: name(4) }, WAIT));
  const endless = { ...range, endWal: "00000001FFFFFFFF00000000" };
  await rejectsWith("usage", archive.closeBackup(endless, WAIT));
  await rejectsWith("usage", archive.closeBackup({ ...range, endWal: "00000001.history" }, WAIT));
  await rejectsWith("not_found", archive.closeBackup({ ...range, cluster: "other" }, WAIT));
});

Deno.test("a damaged or missing cluster.json beside WAL is corruption, never a new cluster", async () => {
  const files = await volume();
  await using archive = await openArchive(files);
  await stream(archive, { start: at(1), length: 10 });
  const path = `${ROOT}/pg/cluster.json`;
  const good = fromUtf8(await files.readFile(path));
  for (const bad of ["", "[]", "{}", good.replace("7300", "x"), good.replace("1,", "2,")]) {
    await files.writeFileAtomic(path, utf8(bad));
    await rejectsWith("corruption", start(archive, name(1)));
  }
  await files.remove(path);
  await rejectsWith("corruption", start(archive, name(1)));
});

Deno.test("closing the archive ends its streams", async () => {
  const archive = await openArchive(await volume());
  const append = await appendAt(archive, at(1));
  await archive[Symbol.asyncDispose]();
  await rejectsWith("cancelled", append.send(at(1), wal(at(1), 1), WAIT));
  await rejectsWith("cancelled", append.finish(WAIT));
});

Deno.test("an aborted request does nothing", async () => {
  await using archive = await openArchive(await volume());
  const aborted = { signal: AbortSignal.abort(new AppError("cancelled", "Stop")) };
  await rejectsWith("cancelled", archive.requestStart({ ...WHO, proposal: name(1) }, aborted));
  const request = { ...WHO, timeline: ONE, start: at(1), segmentSizeBytes: MIB };
  await rejectsWith("cancelled", archive.append(request, aborted));
  await rejectsWith("not_found", archive.metadata("pg", WAIT));
});

Deno.test("the archive key is made once; a wrong password or a lost key is told", async () => {
  const files = new MemoryFiles();
  const options = {
    files,
    clock: new FakeClock(),
    random: new SeededRandom(1),
    log: SILENT,
    beginVerification: TRUSTING,
  };
  const open = (password: string) => WalArchive.open({ ...options, root: ROOT, password });
  await files.makeDirectory(`${ROOT}/lost+found`);
  await files.writeFileAtomic(`${ROOT}/.lock`, utf8(""));
  {
    await using archive = await open("secret");
    await stream(archive, { start: at(1), length: 10 });
  }
  await rejectsWith("permission", open("other"));
  {
    await using archive = await open("secret");
    assert.ok(equalBytes(await read(archive, `${name(1)}.partial`), wal(at(1), 10)));
  }
  await files.remove(`${ROOT}/wal.key`);
  await rejectsWith("corruption", open("secret"));
});
