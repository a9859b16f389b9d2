/**
 * Failover with real processes: primaries are killed, standbys promoted, and the archive of the cluster goes on over the
 * new timelines. Covered: a streamer that moves to the new primary, a streamer that sits on the standby and follows the
 * promotion on its connection, and a standby that was behind the archive when it was promoted. Afterwards the archive
 * alone gives back every life of the cluster, and any moment of the first.
 *
 * `KLIO_TEST_DEEP=1` runs the failovers (they take a minute each): in good order, and with archive and standby not equally far.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { LocalCluster } from "../../src/adapters/postgres/local_cluster.ts";
import type { LogLine, Role } from "../../src/cli/demo/role.ts";
import { ask, createLives, live, lives, position, untilArchived } from "./lives.ts";
import { Stage } from "./stage.ts";

const OPTIONS = { signal: AbortSignal.timeout(300_000) };
const DEEP = Deno.env.get("KLIO_TEST_DEEP") === "1";
const INTERRUPTED = "Streaming was interrupted, trying again";
const SEGMENT_SIZE_BYTES = 1 << 20;
const SEGMENT = { segmentSizeBytes: SEGMENT_SIZE_BYTES };

async function untilReplayed(stage: Stage, standby: LocalCluster, wanted: string): Promise<void> {
  await stage.until(
    `See "${wanted}" replayed`,
    async () =>
      await ask(standby, `SELECT coalesce(pg_last_wal_replay_lsn(), '0/0') >= '${wanted}'`) ===
        "true",
  );
}

async function promote(stage: Stage, standby: LocalCluster): Promise<void> {
  await ask(standby, "SELECT pg_promote(wait => false)");
  await stage.until(
    "Promote the standby",
    async () => await ask(standby, "SELECT pg_is_in_recovery()") === "false",
  );
}

/** Starts a streamer and waits until it streams. */
async function startStreamer(
  stage: Stage,
  source: LocalCluster,
): Promise<{ readonly role: Role; readonly lines: readonly LogLine[] }> {
  const role = stage.startStreamer(source);
  const lines: LogLine[] = [];
  role.onLine((line) => lines.push(line));
  await stage.waitFor(role, "Streaming WAL");
  return { role, lines };
}

function seen(lines: readonly LogLine[], message: string): readonly LogLine[] {
  return lines.filter((line) => line["msg"] === message);
}

async function historyIsStored(stage: Stage, timeline: number): Promise<string> {
  const name = `${timeline.toString(16).padStart(8, "0").toUpperCase()}.history`;
  const path = `${stage.directory}/${name}`;
  await stage.run("wal", "get", name, path);
  const text = await Deno.readTextFile(path);
  await Deno.remove(path);
  return text;
}

Deno.test("the archive goes on over two failovers, and gives back every life and any moment", {
  ignore: !DEEP,
}, async (t) => {
  await using opened = await Stage.open({ ...OPTIONS, ...SEGMENT });
  const { stage, primary: first } = opened;
  await stage.startServer();
  const streamer = await startStreamer(stage, first);
  await createLives(first);
  await stage.backup(first, "first");
  await live(first, "a", 2000);
  let moment = "";
  let second: LocalCluster;
  await t.step("timeline 2: the streamer goes to the promoted standby", async () => {
    second = await stage.startStandby("second", first);
    // By now more than the second has passed that the times of a backup are rounded to.
    moment = await ask(
      first,
      "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    );
    await live(first, "later", 200);
    await untilArchived(stage, first);
    await untilReplayed(stage, second, await position(first));
    await first.kill();
    assert.equal(await stage.stop(streamer.role), 0);
    await promote(stage, second);
    const next = await startStreamer(stage, second);
    await live(second, "b", 2000);
    await untilArchived(stage, second);
    assert.match(await historyIsStored(stage, 2), /^1\t/);
    assert.equal(seen(next.lines, "Created the replication slot").length, 1);
    assert.equal(await stage.stop(next.role), 0);
  });

  let third: LocalCluster;
  await t.step(
    "timeline 3: a streamer on the standby follows its promotion in-stream",
    async () => {
      third = await stage.startStandby("third", second);
      await untilReplayed(stage, third, await position(second));
      const onStandby = await startStreamer(stage, third);
      await live(second, "bb", 500);
      await untilReplayed(stage, third, await position(second));
      await second.kill();
      await promote(stage, third);
      await live(third, "c", 2000);
      await untilArchived(stage, third);
      assert.match(await historyIsStored(stage, 2), /^1\t/);
      assert.match(await historyIsStored(stage, 3), /^1\t[\s\S]*^2\t/m);
      assert.equal(seen(onStandby.lines, "Following a timeline switch").length, 1);
      assert.deepEqual(seen(onStandby.lines, INTERRUPTED), []);
    },
  );

  await t.step("a restore of the first backup to the latest position has all lives", async () => {
    assert.deepEqual(
      await stage.restored("latest", ["--backup-id", "first"], lives),
      await lives(third),
    );
    assert.equal(await lives(third), "a:2000 b:2000 bb:500 c:2000 later:200");
  });

  await t.step("a restore to a moment of the first life, chosen among two backups", async () => {
    await stage.backup(third, "third");
    assert.equal(
      await stage.restored("moment", ["--target-time", moment], lives),
      "a:2000",
    );
  });
});

Deno.test({
  name: "an archive that is ahead of the promoted standby goes on where the histories part",
  ignore: !DEEP,
  fn: async () => {
    await using opened = await Stage.open({ ...OPTIONS, ...SEGMENT });
    const { stage, primary: first } = opened;
    await stage.startServer();
    const streamer = await startStreamer(stage, first);
    await createLives(first);
    await stage.backup(first, "first");
    await live(first, "common", 1000);
    await untilArchived(stage, first);
    // This standby neither reads the archive nor follows its primary once it is told not to.
    const standby = await stage.startStandby("standby", first, {
      settings: { restore_command: "/bin/false" },
    });
    await untilReplayed(stage, standby, await position(first));
    await standby.stop(OPTIONS);
    await live(first, "lost", 5000);
    await untilArchived(stage, first);
    await first.kill();
    await streamer.role.kill();

    await standby.start(OPTIONS);
    await promote(stage, standby);
    await live(standby, "after", 1000);
    const next = await startStreamer(stage, standby);
    await untilArchived(stage, standby);
    assert.equal(await lives(standby), "after:1000 common:1000");
    assert.equal(await stage.restored("latest", [], lives), "after:1000 common:1000");
    assert.deepEqual(seen(next.lines, INTERRUPTED), []);

    // The old primary comes back by mistake: its WAL has no place in this archive any more.
    await first.start(OPTIONS);
    const stale = stage.startStreamer(first);
    const told = await stage.waitFor(stale, INTERRUPTED);
    assert.match(String(told["error"]), /on timeline 1 and does not descend from it/);
    await untilArchived(stage, standby);
  },
});

Deno.test({
  name: "a standby that is ahead of the archive keeps what it has when it is promoted",
  ignore: !DEEP,
  fn: async () => {
    await using opened = await Stage.open({ ...OPTIONS, ...SEGMENT });
    const { stage, primary: first } = opened;
    await stage.startServer();
    const streamer = await startStreamer(stage, first);
    await createLives(first);
    await stage.backup(first, "first");
    await live(first, "archived", 300);
    await untilArchived(stage, first);
    const standby = await stage.startStandby("standby", first);
    await untilReplayed(stage, standby, await position(first));
    assert.equal(await stage.stop(streamer.role), 0);
    await live(first, "ahead", 300);
    await untilReplayed(stage, standby, await position(first));
    await first.kill();

    // Its restore_command is asked again for the segment that it is in, of which the archive has a part.
    await promote(stage, standby);
    assert.equal(await lives(standby), "ahead:300 archived:300");
    await live(standby, "promoted", 300);
    await startStreamer(stage, standby);
    await untilArchived(stage, standby);
    assert.equal(
      await stage.restored("latest", [], lives),
      "ahead:300 archived:300 promoted:300",
    );
  },
});

Deno.test("klio wal get replaces what PostgreSQL has of a segment only by more of it", async () => {
  await using opened = await Stage.open({ ...OPTIONS, ...SEGMENT });
  const { stage, primary } = opened;
  await stage.startServer();
  const streamer = await startStreamer(stage, primary);
  await createLives(primary);
  await live(primary, "some", 100);
  await untilArchived(stage, primary);
  assert.equal(await stage.stop(streamer.role), 0);
  const name = await ask(primary, "SELECT pg_walfile_name(pg_current_wal_flush_lsn())");
  const local = `${stage.directory}/${name}`;
  const fetched = `${stage.directory}/RECOVERYXLOG`;
  await stage.run("wal", "get", name, fetched);
  const archived = await Deno.readFile(fetched);
  await Deno.remove(fetched);
  const sizeBytes = archived.findLastIndex((byte) => byte !== 0) + 1;
  assert.ok(sizeBytes > 0 && sizeBytes < SEGMENT_SIZE_BYTES);

  const longer = archived.slice();
  longer.fill(0xaa, sizeBytes + 8, sizeBytes + 100);
  const shorter = archived.slice();
  shorter.fill(0, sizeBytes - 1);
  for (
    const [content, replaced] of [[archived, false], [longer, false], [shorter, true]] as const
  ) {
    await Deno.writeFile(local, content);
    const outcome = stage.run("wal", "get", name, fetched);
    if (!replaced) {
      await assert.rejects(outcome, /exit code 4/);
      await assert.rejects(Deno.stat(fetched), Deno.errors.NotFound);
    } else {
      await outcome;
      assert.deepEqual(await Deno.readFile(fetched), archived);
    }
  }
});
