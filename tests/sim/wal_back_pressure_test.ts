/**
 * When the disk of the server stalls, WAL stays where it is: at PostgreSQL. What streamer, network and server take in
 * meanwhile is bounded, whatever PostgreSQL has to send.
 *
 * @module
 */

import assert from "node:assert/strict";

import { AppError } from "../../src/base/failure.ts";
import { SILENT } from "../../src/base/log.ts";
import { STREAM_WAL_DEFAULTS, streamWal } from "../../src/features/walstream/mod.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { SimNetwork } from "../support/sim_network.ts";
import { SimPrimary } from "../support/sim_primary.ts";
import { SimServer, simVolume } from "../support/sim_server.ts";
import { SIM_CLUSTER, WalLedger } from "./wal_ledger.ts";

const MIB = 1 << 20;
/** The simulated WAL travels compressed 250 times: a MiB of it takes half a window. */
const WINDOW_BYTES = 8 << 10;
/** Archive: a queue and the round in hand. Network: two queues and what travels. Streamer: a batch and its joined copy. */
const BOUND_BYTES = (8 + 8 + 3 * 3 + 3) * MIB;
const BACKLOG_BYTES = 64 * MIB;

Deno.test("a stalled disk stops the reading of WAL, and all of it arrives when the disk is back", async () => {
  const clock = new FakeClock();
  const end = new AbortController();
  const random = new SeededRandom(1);
  const primary = new SimPrimary({
    clock,
    random: random.fork(),
    onFlush: (timeline, status) => ledger.flushed(timeline, status.flush),
  });
  const ledger: WalLedger = new WalLedger(primary);
  const server = new SimServer(await simVolume(), {
    clock,
    random: random.fork(),
    log: SILENT,
    signal: end.signal,
    trace: () => {},
    onKilled: () => {},
    onPowerLoss: () => {},
    pretended: undefined,
    forgetsGaps: false,
  });
  const network = new SimNetwork({
    clock,
    random: random.fork(),
    identity: { user: "streamer", cluster: SIM_CLUSTER },
    latencyMsMax: 1,
    windowBytes: WINDOW_BYTES,
    signal: end.signal,
    archive: () => server.archive,
    onDurable: (stream, position) => ledger.acknowledged(stream, position),
    onHistory: (timeline) => ledger.stored(timeline),
    onBug: (error) => assert.fail(String(error)),
    acknowledgesArrival: false,
  });
  await server.start();
  const stop = new AbortController();
  const deps = { source: primary, server: network.client(), clock, random, log: SILENT };
  const streaming = streamWal(deps, { ...STREAM_WAL_DEFAULTS, cluster: SIM_CLUSTER }, stop);
  const untilTold = async () => {
    for (let i = 0; i < 5000 && ledger.told !== primary.end; i++) await clock.advance(100);
    assert.equal(ledger.told, primary.end);
  };
  primary.write(100);
  await untilTold();

  server.syncMsMax = 1 << 30;
  const before = primary.sentBytes;
  primary.write(BACKLOG_BYTES);
  await clock.advance(25_000);
  const taken = primary.sentBytes - before;
  assert.ok(taken > MIB && taken <= BOUND_BYTES, `${taken} bytes, at most ${BOUND_BYTES}`);

  server.kill();
  network.serverDied("reset");
  server.syncMsMax = 1;
  await server.start();
  await untilTold();
  stop.abort(new AppError("cancelled", "The test is over"));
  await clock.advance(1000);
  await streaming;
  end.abort(new AppError("cancelled", "The test is over"));
  await clock.advance(0);
  await ledger.verifyComplete(server.disk.afterCrash(1), primary.end);
});
