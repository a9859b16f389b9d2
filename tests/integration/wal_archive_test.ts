/**
 * The WAL archive on the real file system, and the promise of FORMAT.md: its very commands, taken from the document, get
 * key and content back with stock openssl and zstd. Without these programs the tests say "not run".
 *
 * @module
 */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { promisify } from "node:util";

import { openLocalFiles } from "../../src/adapters/localfs/files.ts";
import { type Bytes, concat, equalBytes, utf8 } from "../../src/base/bytes.ts";
import { SILENT } from "../../src/base/log.ts";
import { lsn, lsnAdd, segmentName, timelineId } from "../../src/domain/lsn.ts";
import { WalArchive } from "../../src/features/walarchive/mod.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { wal } from "../support/fake_wal.ts";
import { TRUSTING } from "../support/trusting_verification.ts";

const MIB = 1 << 20;
const SEGMENT_BYTES = 16 * MIB;
const PASSWORD = "correct horse battery staple";
const CLUSTER = "pg";
const TIMELINE = timelineId(1);
const START = lsn(3n * BigInt(SEGMENT_BYTES));
const WAIT = { signal: new AbortController().signal };
const RANDOM = {
  float: () => Math.random(),
  bytes: (count: number) => Uint8Array.from(randomBytes(count)),
};

function openArchive(root: string): Promise<WalArchive> {
  const options = {
    files: openLocalFiles(),
    clock: new FakeClock(),
    random: RANDOM,
    log: SILENT,
    beginVerification: TRUSTING,
  };
  return WalArchive.open({ ...options, root, password: PASSWORD });
}

async function withDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "klio-walarchive-" });
  try {
    await body(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function stream(archive: WalArchive, length: number, step: number): Promise<void> {
  const request = { cluster: CLUSTER, systemId: "7300000000000000001", timeline: TIMELINE };
  const place = { start: START, segmentSizeBytes: SEGMENT_BYTES };
  await using append = await archive.append({ ...request, ...place }, WAIT);
  for (let done = 0; done < length; done += step) {
    const position = lsnAdd(START, done);
    await append.send(position, wal(position, Math.min(step, length - done)), WAIT);
  }
  await append.finish(WAIT);
}

async function read(archive: WalArchive, name: string): Promise<Bytes> {
  const blocks: Uint8Array[] = [];
  const file = await archive.get({ cluster: CLUSTER, name }, WAIT);
  for await (const block of file.blocks) blocks.push(block);
  return concat(blocks);
}

async function missingTools(): Promise<string[]> {
  const missing: string[] = [];
  for (const [tool, argument] of [["openssl", "version"], ["zstd", "--version"]] as const) {
    await promisify(execFile)(tool, [argument]).catch(() => missing.push(tool));
  }
  return missing;
}

/** The shell blocks of FORMAT.md, in order. */
async function documentedCommands(): Promise<string[]> {
  const path = new URL("../../src/codec/walfile/FORMAT.md", import.meta.url);
  const text = await Deno.readTextFile(path);
  return [...text.matchAll(/```sh\n(.*?)```/gs)].map((match) => match[1] ?? "");
}

async function shell(script: string, cwd: string): Promise<string> {
  const { stdout } = await promisify(execFile)("sh", ["-c", `set -e\n${script}`], {
    cwd,
    timeout: 60_000,
  });
  return stdout;
}

Deno.test("WAL on real files survives closing, is compared when streamed again, and continues", async () => {
  await withDirectory(async (directory) => {
    const root = `${directory}/wal`;
    {
      await using archive = await openArchive(root);
      await stream(archive, SEGMENT_BYTES + 100_000, 65_536);
    }
    await using archive = await openArchive(root);
    await stream(archive, 2 * SEGMENT_BYTES + 5, 1_000_003);
    for (const segment of [0, 1]) {
      const position = lsnAdd(START, segment * SEGMENT_BYTES);
      const name = segmentName(TIMELINE, position, SEGMENT_BYTES);
      assert.ok(equalBytes(await read(archive, name), wal(position, SEGMENT_BYTES)));
    }
    const last = lsnAdd(START, 2 * SEGMENT_BYTES);
    const partial = `${segmentName(TIMELINE, last, SEGMENT_BYTES)}.partial`;
    assert.deepEqual(await read(archive, partial), wal(last, 5));
    const [summary] = await archive.summary(WAIT);
    assert.equal(summary?.segments, 2);
    assert.equal(summary?.durable, lsnAdd(last, 5));
  });
});

Deno.test("openssl and zstd recover key, segments, torn partials and histories with the documented commands", async (t) => {
  const missing = await missingTools();
  if (missing.length > 0) {
    await t.step(`not run: no ${missing.join(", no ")} (apt install openssl zstd)`, () => {});
    return;
  }
  const [keyCommand = "", fileCommand = "", makeKeyCommand = ""] = await documentedCommands();
  const password = `-pass 'pass:${PASSWORD}'`;
  const getKey = keyCommand.replace("-in wal.key", `-in wal/wal.key ${password}`);
  assert.notEqual(getKey, keyCommand);
  await withDirectory(async (directory) => {
    const root = `${directory}/wal`;
    const content = utf8("1\t0/3000000\tno recovery target specified\n");
    {
      await using archive = await openArchive(root);
      await stream(archive, SEGMENT_BYTES + 3 * MIB, 300_000);
      const who = { cluster: CLUSTER, systemId: "7300000000000000001" };
      await archive.putHistory({ ...who, timeline: timelineId(2), content }, WAIT);
    }
    const recover = async (file: string): Promise<Bytes> => {
      await shell(`${getKey}\nF='${file}'\n${fileCommand}`, directory);
      return await Deno.readFile(`${directory}/SEGMENT`);
    };
    const name = segmentName(TIMELINE, START, SEGMENT_BYTES);
    const next = lsnAdd(START, SEGMENT_BYTES);
    const nextName = segmentName(TIMELINE, next, SEGMENT_BYTES);
    const path = `${root}/${CLUSTER}/${name.slice(0, 16)}`;
    assert.ok(equalBytes(await recover(`${path}/${name}`), wal(START, SEGMENT_BYTES)));
    const partial = `${path}/${nextName}.partial`;
    assert.ok(equalBytes(await recover(partial), wal(next, 3 * MIB)));
    assert.deepEqual(await recover(`${root}/${CLUSTER}/00000002.history`), content);

    const torn = `${directory}/torn`;
    await Deno.writeFile(torn, (await Deno.readFile(partial)).slice(0, -1000));
    await assert.rejects(recover(torn));
    const prefix = await Deno.readFile(`${directory}/SEGMENT`);
    assert.ok(prefix.length >= MIB, `${prefix.length} bytes before the tear`);
    assert.ok(equalBytes(prefix, wal(next, prefix.length)));
  });
  await withDirectory(async (directory) => {
    // The other way round: a key file made by openssl opens as ours.
    const digits = randomBytes(32).toString("hex");
    const make = makeKeyCommand.replace("64-LOWER-CASE-HEX-DIGITS", digits)
      .replace("-out wal.key", `-out wal/wal.key ${password}`);
    await Deno.mkdir(`${directory}/wal`);
    await shell(make, directory);
    await using archive = await openArchive(`${directory}/wal`);
    await stream(archive, 1000, 1000);
    await shell(`${getKey}\ntest "$KEY" = ${digits}`, directory);
  });
});
