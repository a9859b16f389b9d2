import assert from "node:assert/strict";
import { lsn } from "../../domain/lsn.ts";
import { FlushLagMeter, PENDING_MAX, SAMPLES_MAX } from "./flush_lag.ts";

Deno.test("FlushLagMeter measures from receiving to acknowledgement", () => {
  const meter = new FlushLagMeter();
  assert.deepEqual(meter.lag, { samples: 0, p50Ms: 0, p99Ms: 0 });
  for (let i = 1; i <= 100; i++) meter.received(lsn(BigInt(i)), 0);
  for (let i = 1; i <= 100; i++) meter.durable(lsn(BigInt(i)), i);
  assert.deepEqual(meter.lag, { samples: 100, p50Ms: 50, p99Ms: 99 });
  meter.received(lsn(200n), 0);
  meter.durable(lsn(199n), 500);
  meter.forget();
  meter.durable(lsn(200n), 500);
  assert.equal(meter.lag.samples, 100);
});

Deno.test("FlushLagMeter is bounded, and errs towards longer times", () => {
  const meter = new FlushLagMeter();
  for (let i = 1; i <= 3 * PENDING_MAX; i++) meter.received(lsn(BigInt(i)), i);
  meter.durable(lsn(BigInt(3 * PENDING_MAX - 1)), 3 * PENDING_MAX);
  assert.equal(meter.lag.samples, SAMPLES_MAX);
  meter.durable(lsn(BigInt(3 * PENDING_MAX)), 3 * PENDING_MAX);
  assert.ok(meter.lag.p99Ms >= 2 * PENDING_MAX);
});
