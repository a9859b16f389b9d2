/**
 * Two streamers for one cluster: one streams, the other says who does, keeps trying without disturbing anybody, and takes
 * over by itself when the first is gone, whether the server hears of that (the process died) or not (it fell silent).
 *
 * @module
 */

import assert from "node:assert/strict";
import type { LogLine } from "../../src/cli/demo/role.ts";
import { AppError } from "../../src/base/failure.ts";
import { DurableWriters } from "./durable_writers.ts";
import { Stage } from "./stage.ts";

/** Two seconds between two tries, and what a try takes on a busy machine. */
const TAKE_OVER_MS_MAX = 15_000;
/** The server pings a silent client after 20 s and gives it 10 s to answer. */
const SILENCE_MS_MAX = 30_000;
const INTERRUPTED = "Streaming was interrupted, trying again";

/** `fell` says how the first streamer leaves, and how long the server may need to notice. */
async function secondTakesOver(
  fell: { readonly signal: "SIGKILL" | "SIGSTOP"; readonly withinMs: number },
): Promise<void> {
  const stop = new AbortController();
  const options = { signal: stop.signal };
  await using opened = await Stage.open({
    ...options,
    // PostgreSQL, too, must notice that a streamer is silent before another may use its slot.
    settings: { synchronous_standby_names: "klio", wal_sender_timeout: "10s" },
  });
  const { stage, primary } = opened;
  await stage.startServer();
  const first = stage.startStreamer(primary);
  const interruptions: LogLine[] = [];
  first.onLine((line) => {
    if (line["msg"] === INTERRUPTED) interruptions.push(line);
  });
  await stage.waitFor(first, "Streaming WAL");
  await using writers = await DurableWriters.start(primary, { ...options, writers: 2 });
  const further = (count: number) =>
    stage.within(`See ${count} commits`, (o) => writers.further(count, o));
  try {
    await further(10);
    const second = stage.startStreamer(primary);
    const told = await stage.waitFor(second, INTERRUPTED);
    assert.match(
      String(told["error"]),
      /another writer holds it.*an append stream on timeline 1 from \S+ has been open since/,
    );
    await further(200);
    assert.deepEqual(interruptions, []);
    const fellMs = performance.now();
    Deno.kill(first.pid, fell.signal);
    await stage.waitFor(second, "Streaming WAL");
    await further(10);
    const tookMs = Math.round(performance.now() - fellMs);
    console.log(`the second streamer took over after ${tookMs} ms`);
    assert.ok(tookMs < fell.withinMs, `${tookMs} ms`);
  } finally {
    stop.abort(new AppError("cancelled", "The test is over"));
  }
}

Deno.test("a second streamer is told who streams, and takes over when that one is killed", async () => {
  await secondTakesOver({ signal: "SIGKILL", withinMs: TAKE_OVER_MS_MAX });
});

Deno.test({
  name: "a second streamer takes over when the first falls silent",
  ignore: Deno.env.get("KLIO_TEST_DEEP") !== "1",
  fn: async () => {
    await secondTakesOver({ signal: "SIGSTOP", withinMs: SILENCE_MS_MAX + TAKE_OVER_MS_MAX });
  },
});
