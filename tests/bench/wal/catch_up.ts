/**
 * How fast the same WAL is caught up by klio and by `pg_receivewal`. The clock starts with the connection to PostgreSQL (as
 * PostgreSQL notes it) and stops when the last byte is durable: for klio, when PostgreSQL has been told so; for
 * `pg_receivewal`, which tells of it late by default, when the last segment has its final name, before which it is fsynced.
 *
 * @module
 */

import type { Waiting } from "../../../src/base/abort.ts";
import type { OwnCommand } from "../../../src/adapters/process/self.ts";
import { SYSTEM_CLOCK } from "../../../src/adapters/process/clock.ts";
import { APPLICATION_NAME } from "../../../src/domain/names.ts";
import { lsn, segmentName, timelineId } from "../../../src/domain/lsn.ts";
import { type BenchPrimary, copySlot, dropSlot, findStandby, standbyAt } from "./primary.ts";
import { type ProcessUsage, processUsage } from "./process_usage.ts";
import { startKlio, startPgReceivewal } from "./receivers.ts";

const POLL_MS = 5;
const SEGMENT_BYTES = 16 << 20;
const GIB = 2 ** 30;

/** One run of one receiver. CPU time is that of the catching up, start of the processes not included. */
export interface CatchUp {
  readonly megabytesPerSecond: number;
  readonly seconds: number;
  readonly cpuSecondsPerGib: Readonly<Record<string, number>>;
  /** How much of `seconds` each main thread waited for a processor that somebody else had. */
  readonly cpuWaitSeconds: Readonly<Record<string, number>>;
  readonly rssPeakMib: Readonly<Record<string, number>>;
}

/** Processes by the name they are reported under. */
type Pids = Readonly<Record<string, number>>;

async function usages(pids: Pids): Promise<ReadonlyArray<readonly [string, ProcessUsage]>> {
  return await Promise.all(
    Object.entries(pids).map(async ([name, pid]) => [name, await processUsage(pid)] as const),
  );
}

async function measure(
  request: {
    readonly primary: BenchPrimary;
    readonly application: string;
    readonly pids: Pids;
    readonly reached: () => Promise<boolean>;
  },
  options: Waiting,
): Promise<CatchUp> {
  const { primary } = request;
  const standby = await standbyAt(primary.sql, request.application, options);
  const pids = { ...request.pids, walsender: standby.pid };
  const before = new Map(await usages(pids));
  while (!await request.reached()) await SYSTEM_CLOCK.sleep(POLL_MS, options);
  const seconds = (SYSTEM_CLOCK.nowMs() - standby.startMs) / 1000;
  const after = await usages(pids);
  const gib = primary.walBytes / GIB;
  return {
    seconds,
    megabytesPerSecond: primary.walBytes / 1e6 / seconds,
    cpuSecondsPerGib: Object.fromEntries(
      after.map((
        [name, { cpuSeconds }],
      ) => [name, (cpuSeconds - (before.get(name)?.cpuSeconds ?? 0)) / gib]),
    ),
    cpuWaitSeconds: Object.fromEntries(
      after.map((
        [name, { cpuWaitSeconds }],
      ) => [name, cpuWaitSeconds - (before.get(name)?.cpuWaitSeconds ?? 0)]),
    ),
    rssPeakMib: Object.fromEntries(after.map(([name, { rssPeakMib }]) => [name, rssPeakMib])),
  };
}

/** One catch-up by klio, from an empty archive. */
export async function catchUpKlio(
  request: { readonly klio: OwnCommand; readonly directory: string },
  primary: BenchPrimary,
  options: Waiting,
): Promise<CatchUp> {
  const slot = "bench_klio";
  await copySlot(primary.sql, slot, options);
  let result: CatchUp;
  {
    await using klio = await startKlio({ ...request, slot }, primary.cluster, options);
    result = await measure({
      primary,
      application: APPLICATION_NAME,
      pids: { server: klio.serverPid, streamer: klio.streamerPid },
      reached: async () =>
        ((await findStandby(primary.sql, APPLICATION_NAME, options))?.flush ?? 0n) >= primary.end,
    }, options);
    await klio.stop(options);
  }
  await dropSlot(primary.sql, slot, options);
  return result;
}

/** One catch-up by `pg_receivewal`, into an empty directory. */
export async function catchUpPgReceivewal(
  request: { readonly program: string; readonly directory: string },
  primary: BenchPrimary,
  options: Waiting,
): Promise<CatchUp> {
  const slot = "bench_pg_receivewal";
  await copySlot(primary.sql, slot, options);
  const last = segmentName(timelineId(1), lsn(primary.end - 1n), SEGMENT_BYTES);
  let result: CatchUp;
  {
    await using receiver = await startPgReceivewal({ ...request, slot }, primary.cluster);
    result = await measure({
      primary,
      application: "pg_receivewal",
      pids: { pg_receivewal: receiver.pid },
      reached: () => receiver.has(last),
    }, options);
  }
  await dropSlot(primary.sql, slot, options);
  return result;
}
