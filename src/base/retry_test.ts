/**
 * Retrying ends: by success, by a failure that retrying cannot help, by time or by an abort.
 *
 * @module
 */

import assert from "node:assert/strict";
import { FakeClock } from "../../tests/support/fake_clock.ts";
import { SeededRandom } from "../../tests/support/seeded_random.ts";
import { AssertionFailure } from "./assert.ts";
import { AppError, type FailureKind, FAILURES } from "./failure.ts";
import { type Logger, SILENT } from "./log.ts";
import { backoffMs, isRetryable, retry, type RetryOptions } from "./retry.ts";

const DOWN = new AppError("source", "Down");

function options(clock: FakeClock, more: Partial<RetryOptions> = {}): RetryOptions {
  return {
    what: "Connect",
    totalMs: 10_000,
    backoff: { firstMs: 100, maxMs: 1_000 },
    clock,
    random: new SeededRandom(1),
    log: SILENT,
    signal: new AbortController().signal,
    ...more,
  };
}

Deno.test("backoffMs() doubles from the first to the cap, jittered between half and whole", () => {
  const backoff = { firstMs: 100, maxMs: 1_000 };
  const wholes = [100, 200, 400, 800, 1_000, 1_000];
  for (const [attempt, whole] of wholes.entries()) {
    const fixed = (float: number) =>
      backoffMs(backoff, attempt, { float: () => float, bytes: () => new Uint8Array(0) });
    assert.equal(fixed(0), whole / 2);
    assert.equal(fixed(1), whole);
  }
  const late = backoffMs(backoff, 1e9, new SeededRandom(1));
  assert.ok(late >= 500 && late <= 1_000, `attempt 1e9 gave ${late}`);
});

Deno.test("isRetryable() follows the failure table", () => {
  for (const [kind, row] of Object.entries(FAILURES)) {
    const wanted = ["yes", "reconnect", "after_relief"].includes(row.retry);
    assert.equal(isRetryable(new AppError(kind as FailureKind, "x")), wanted, kind);
  }
  assert.equal(isRetryable(new AssertionFailure("x")), false);
});

Deno.test("retry() returns the first success and says so once when there were failures", async () => {
  const clock = new FakeClock();
  const lines: string[] = [];
  const log: Logger = {
    ...SILENT,
    warn: (message, fields) => lines.push(`${message} ${fields?.["what"]}`),
    info: (message, fields) => lines.push(`${message} ${fields?.["attempts"]}`),
  };
  let calls = 0;
  const result = retry(() => ++calls < 4 ? Promise.reject(DOWN) : Promise.resolve(calls), {
    ...options(clock),
    log,
  });
  await clock.advance(5_000);
  assert.equal(await result, 4);
  assert.deepEqual(lines, ["Failed, retrying Connect", "Recovered after retrying 4"]);
  assert.equal(
    await retry(() => Promise.resolve("at once"), { ...options(clock), log }),
    "at once",
  );
  assert.equal(lines.length, 2);
});

Deno.test("retry() gives up at once on a failure that retrying cannot help", async () => {
  let calls = 0;
  const wrong = new AppError("config", "Wrong");
  const action = () => {
    calls++;
    return Promise.reject(wrong);
  };
  await assert.rejects(retry(action, options(new FakeClock())), wrong);
  assert.equal(calls, 1);
});

Deno.test("retry() asks the given predicate instead of the table", async () => {
  const options_ = options(new FakeClock(), { retryable: () => false });
  await assert.rejects(retry(() => Promise.reject(DOWN), options_), DOWN);
});

Deno.test("retry() throws the last failure when the next wait would pass the total time", async () => {
  const clock = new FakeClock();
  let calls = 0;
  const result = retry(() => Promise.reject(new AppError("source", `Down ${++calls}`)), {
    ...options(clock),
    totalMs: 2_000,
  });
  const failed = assert.rejects(result, () => true);
  await clock.advance(60_000);
  await failed;
  assert.ok(calls >= 4 && calls <= 7, `${calls} calls`);
  await assert.rejects(result, { message: `Down ${calls}` });
  assert.equal(clock.sleeping, 0);
});

Deno.test("retry() stops waiting when aborted, and does not even begin when aborted before", async () => {
  const clock = new FakeClock();
  const controller = new AbortController();
  const reason = new AppError("cancelled", "Stop");
  const result = retry(() => Promise.reject(DOWN), {
    ...options(clock),
    signal: controller.signal,
  });
  await clock.untilSleeping(1);
  controller.abort(reason);
  await assert.rejects(result, reason);
  assert.equal(clock.sleeping, 0);
  const never = () => Promise.reject(new Error("must not run"));
  await assert.rejects(retry(never, { ...options(clock), signal: controller.signal }), reason);
});
