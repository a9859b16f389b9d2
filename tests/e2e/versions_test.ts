/**
 * The whole path, end to end, for every PostgreSQL version and the extremes of the WAL segment size. Runs with
 * `KLIO_TEST_DEEP=1`: it may download PostgreSQL, and takes a quarter of a minute per line of the table.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { PostgresMajor } from "../support/postgres.ts";
import { ask, createLives, live, lives, untilArchived } from "./lives.ts";
import { Stage } from "./stage.ts";

const MIB = 1 << 20;
const CASES: ReadonlyArray<{ readonly major: PostgresMajor; readonly segmentSizeBytes: number }> = [
  { major: 15, segmentSizeBytes: MIB },
  { major: 15, segmentSizeBytes: 64 * MIB },
  { major: 16, segmentSizeBytes: 16 * MIB },
  { major: 17, segmentSizeBytes: 64 * MIB },
  { major: 18, segmentSizeBytes: MIB },
];

for (const choice of CASES) {
  const { major, segmentSizeBytes } = choice;
  Deno.test({
    name: `PostgreSQL ${major} with WAL segments of ${segmentSizeBytes / MIB} MiB is streamed, ` +
      "backed up and restored",
    ignore: Deno.env.get("KLIO_TEST_DEEP") !== "1",
    fn: async () => {
      const options = { signal: AbortSignal.timeout(300_000) };
      await using opened = await Stage.open({ ...options, ...choice });
      const { stage, primary } = opened;
      assert.match(await ask(primary, "SHOW server_version"), new RegExp(`^${major}\\.`));
      await stage.startServer();
      const streamer = stage.startStreamer(primary);
      await stage.waitFor(streamer, "Streaming WAL");
      await createLives(primary);
      await live(primary, "before", 1000);
      await stage.backup(primary, "only");
      // Across the end of a segment that is full, then one that was switched, then into one that stays partial.
      await live(primary, "full", Math.ceil(segmentSizeBytes / 900));
      await ask(primary, "SELECT pg_switch_wal()");
      await live(primary, "partial", 100);
      await untilArchived(stage, primary);
      assert.equal(await stage.restored("restored", [], lives), await lives(primary));
      assert.equal(await stage.stop(streamer), 0);
    },
  });
}
