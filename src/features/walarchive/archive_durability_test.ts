import assert from "node:assert/strict";

import { type Bytes, utf8 } from "../../base/bytes.ts";
import { lsn, parseLsn } from "../../domain/lsn.ts";
import { wal } from "../../../tests/support/fake_wal.ts";
import type { MemoryFiles } from "../../../tests/support/memory_files.ts";
import {
  acknowledged,
  appendAt,
  at,
  MIB,
  name,
  ONE,
  openArchive,
  read,
  rejectsWith,
  start,
  stream,
  TWO,
  volume,
  WAIT,
  WHO,
} from "../../../tests/support/wal_archive_world.ts";
import type { WalArchive } from "./mod.ts";

Deno.test("acknowledgements never run ahead of what a crash keeps", async () => {
  const files = await volume();
  const archive = await openArchive(files);
  const append = await appendAt(archive, at(1));
  await append.send(at(1), wal(at(1), 1000), WAIT);
  await acknowledged(append, at(1, 1000));
  await append.send(at(1, 1000), wal(at(1, 1000), 24), WAIT);
  await acknowledged(append, at(1, 1024));
  for (let seed = 0; seed < 20; seed++) {
    await using after = await openArchive(files.afterCrash(seed));
    assert.deepEqual(await read(after, `${name(1)}.partial`), wal(at(1), 1024));
  }
  await append[Symbol.asyncDispose]();
});

for (const kind of ["exhausted", "repository", "permission"] as const) {
  Deno.test(`${kind} of the storage stops acknowledging; a reconnect continues after relief`, async () => {
    for (let skip = 0; skip < 12; skip++) {
      const files = await volume();
      await using archive = await openArchive(files);
      await start(archive, name(1));
      {
        await using append = await appendAt(archive, at(1));
        await append.send(at(1), wal(at(1), 5000), WAIT);
        await acknowledged(append, at(1, 5000));
        const operations = ["write", "sync", "syncDirectory", "rename", "create", "mkdir"] as const;
        files.setFault({ kind, operations, skip });
        const wanted = kind === "exhausted" ? kind : "repository";
        const ended = rejectsWith(wanted, acknowledged(append, at(9)));
        await append.send(at(1, 5000), wal(at(1, 5000), 3 * MIB), WAIT);
        await rejectsWith(wanted, append.finish(WAIT));
        await ended;
        files.clearFault();
      }
      const again = await start(archive, name(1));
      const from = lsn(BigInt(Number.parseInt(again.slice(16), 16)) * BigInt(MIB));
      await stream(archive, { start: from, length: Number(at(5) - from) });
      for (const segment of [1, 2, 3, 4]) {
        assert.deepEqual(await read(archive, name(segment)), wal(at(segment), MIB));
      }
      assert.deepEqual((await archive.metadata(WHO.cluster, WAIT)).gaps, []);
    }
  });
}

Deno.test("what a failed sync may have lost is acknowledged only after it was written anew", async () => {
  const files = await volume();
  await using archive = await openArchive(files);
  {
    await using append = await appendAt(archive, at(1));
    await append.send(at(1), wal(at(1), 1000), WAIT);
    await acknowledged(append, at(1, 1000));
    files.setFault({ kind: "repository", operations: ["sync"] });
    await append.send(at(1, 1000), wal(at(1, 1000), 1000), WAIT);
    await rejectsWith("repository", append.finish(WAIT));
    files.clearFault();
  }
  await using append = await appendAt(archive, at(1));
  await append.send(at(1), wal(at(1), 2000), WAIT);
  await acknowledged(append, at(1, 2000));
  for (let seed = 0; seed < 30; seed++) {
    await using after = await openArchive(files.afterCrash(seed));
    assert.deepEqual(await read(after, `${name(1)}.partial`), wal(at(1), 2000));
  }
});

Deno.test("bytes of an older partial are not acknowledged before our file has replaced it", async () => {
  const files = await volume();
  await using archive = await openArchive(files);
  files.setFault({ kind: "repository", operations: ["sync"], path: ".partial", skip: 1 });
  {
    await using append = await appendAt(archive, at(1));
    await append.send(at(1), wal(at(1), 1000), WAIT);
    await acknowledged(append, at(1, 1000));
    await append.send(at(1, 1000), wal(at(1, 1000), 1000), WAIT);
    await rejectsWith("repository", append.finish(WAIT));
  }
  files.clearFault();
  await using append = await appendAt(archive, at(1));
  await append.send(at(1), wal(at(1), 1500), WAIT);
  await append.finish(WAIT);
  for await (const durable of append.acknowledgements()) assert.fail(String(durable));
});

/** The segment is complete, but its directory entry never became durable: the sync failed. */
async function renamedButNotSynced(
  before: (archive: WalArchive) => Promise<void> = () => Promise.resolve(),
): Promise<{ files: MemoryFiles; archive: WalArchive }> {
  const files = await volume();
  const archive = await openArchive(files);
  await before(archive);
  files.setFault({
    kind: "repository",
    operations: ["syncDirectory"],
    path: name(1).slice(0, 16),
    count: 1,
  });
  await rejectsWith("repository", stream(archive, { start: at(1), length: MIB }));
  return { files, archive };
}

async function assertSurvives(files: MemoryFiles, segment: string, content: Bytes): Promise<void> {
  for (let seed = 0; seed < 20; seed++) {
    await using after = await openArchive(files.afterCrash(seed));
    assert.deepEqual(await read(after, segment), content);
  }
}

Deno.test("start negotiation tells only of segments whose name is durable", async () => {
  const { files, archive } = await renamedButNotSynced();
  assert.equal(await start(archive, name(1)), name(2));
  await assertSurvives(files, name(1), wal(at(1), MIB));
});

Deno.test("a segment that is there already is acknowledged only when its name is durable", async () => {
  // A later directory exists, so that looking for the latest segment does not sync this one.
  const later = { start: parseLsn("1/0"), length: 10 };
  const { files, archive } = await renamedButNotSynced((archive) => stream(archive, later));
  await using append = await appendAt(archive, at(1));
  await append.send(at(1), wal(at(1), 1000), WAIT);
  await acknowledged(append, at(1, 1000));
  await append[Symbol.asyncDispose]();
  await assertSurvives(files, name(1), wal(at(1), MIB));
});

Deno.test("closeBackup counts only segments whose name is durable", async () => {
  const { files, archive } = await renamedButNotSynced();
  const range = { backupName: "b", timeline: ONE, startWal: name(1), endWal: name(1) };
  const request = { cluster: "pg", segmentSizeBytes: MIB, ...range };
  assert.deepEqual(await archive.closeBackup(request, WAIT), []);
  await assertSurvives(files, name(1), wal(at(1), MIB));
});

Deno.test("a history that is there already is confirmed only when its name is durable", async () => {
  const files = await volume();
  await using archive = await openArchive(files);
  await start(archive, name(1));
  const content = utf8("1\t0/3000000\tno recovery target specified\n");
  const request = { ...WHO, timeline: TWO, content };
  files.setFault({ kind: "repository", operations: ["syncDirectory"], count: 1 });
  await rejectsWith("repository", archive.putHistory(request, WAIT));
  await archive.putHistory(request, WAIT);
  await assertSurvives(files, "00000002.history", content);
});
