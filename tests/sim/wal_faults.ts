/**
 * What may go wrong in a simulated world: every fault with its name, its seeded size, and the way back that an orchestrator
 * or an administrator would take some time later.
 *
 * @module
 */

import { lsn, lsnDistance, lsnMax } from "../../src/domain/lsn.ts";
import { STREAM_WAL_DEFAULTS } from "../../src/features/walstream/mod.ts";
import type { FakeClock } from "../support/fake_clock.ts";
import type { Operation } from "../support/memory_faults.ts";
import type { SeededRandom } from "../support/seeded_random.ts";
import type { Cut, SimNetwork } from "../support/sim_network.ts";
import type { SimPrimary } from "../support/sim_primary.ts";
import type { SimServer } from "../support/sim_server.ts";
import { SIM_SEGMENT_BYTES } from "../support/sim_wal.ts";

/** What faults hit. */
export interface FaultTargets {
  readonly clock: FakeClock;
  readonly random: SeededRandom;
  readonly primary: SimPrimary;
  readonly network: SimNetwork;
  readonly server: SimServer;
  later(ms: number, action: () => void): void;
  startServer(): void;
  /** One more, beside those that run. */
  startStreamer(): { kill(cut: Cut): void };
  /** Starts one unless one runs. */
  ensureStreamer(): void;
  /** SIGKILL, or their machine is gone: then the peers notice late. */
  killStreamers(cut: Cut): void;
  /** SIGTERM: they drain. */
  stopStreamers(): void;
}

const EIO_OPERATIONS: readonly (readonly Operation[])[] = [
  ["sync"],
  ["write"],
  ["rename"],
  ["syncDirectory"],
  ["read", "open"],
  ["write", "sync", "rename", "syncDirectory", "create", "mkdir", "list", "stat", "remove"],
];

/** Every kind of fault by name. */
export function faultsOf(targets: FaultTargets): Record<string, () => void> {
  const { clock, random, primary, network, server, later, startServer } = targets;
  const someMs = () => random.integer(0, 5000);
  const restartServer = () => later(someMs(), () => startServer());
  const restartStreamer = (ms: number) => later(ms, () => targets.ensureStreamer());
  const restartPrimary = () => later(someMs(), () => primary.start());
  return {
    "network: reset": () => network.cutAll("reset"),
    "network: silence": () => network.cutAll("silence"),
    "network: partition": () => {
      network.isPartitioned = true;
      network.cutAll(random.pick(["reset", "silence"]));
      later(someMs(), () => network.isPartitioned = false);
    },
    "server: killed": () => {
      server.kill();
      network.serverDied("reset");
      restartServer();
    },
    "server: killed at an operation": () => {
      server.killAfterChecks = random.integer(1, 60);
    },
    "server: power fails": () => server.losePower(),
    "server: power fails at an operation": () => {
      server.disk.crashAt(server.disk.operations + random.integer(1, 25));
    },
    "disk: error": () => {
      server.disk.setFault({
        kind: random.pick(["repository", "exhausted", "permission"]),
        operations: EIO_OPERATIONS[random.integer(0, EIO_OPERATIONS.length - 1)] ?? ["sync"],
        skip: random.integer(0, 5),
        count: random.pick([1, 2, 10]),
      });
    },
    "disk: full": () => {
      const disk = server.disk;
      disk.setFault({ kind: "exhausted", operations: ["write", "create", "mkdir"] });
      later(someMs(), () => disk.clearFault());
    },
    "disk: slow": () => {
      const before = server.syncMsMax;
      server.syncMsMax = 3000;
      later(someMs(), () => server.syncMsMax = before);
    },
    "streamer: killed": () => {
      targets.killStreamers("reset");
      restartStreamer(someMs());
    },
    "streamer: machine lost": () => {
      targets.killStreamers("silence");
      restartStreamer(someMs());
    },
    "streamer: stopped": () => {
      targets.stopStreamers();
      restartStreamer(STREAM_WAL_DEFAULTS.drainTimeoutMs + someMs());
    },
    "streamer: a second one": () => {
      const second = targets.startStreamer();
      later(someMs(), () => {
        second.kill(random.pick(["reset", "silence"]));
        targets.ensureStreamer();
      });
    },
    "primary: crash": () => {
      primary.crash();
      restartPrimary();
    },
    "primary: shutdown": () => {
      primary.shutDown();
      restartPrimary();
    },
    "primary: promoted": () => {
      if (primary.isUp) primary.promote();
    },
    "primary: failover": () => {
      const from = primary.switchPoints.at(-1) ?? lsn(5n * BigInt(SIM_SEGMENT_BYTES));
      const behind = Math.floor(
        lsnDistance(from, primary.end) * random.pick([0, 0.01, 0.3, 0.7]),
      );
      const end = lsn(primary.end - BigInt(behind));
      primary.failOver(lsnMax(end, primary.oldest), random.pick(["kept", "kept", "missing"]));
    },
    "primary: loses WAL": () => {
      const writtenBytes = random.pick([0, 1, 2]) * SIM_SEGMENT_BYTES;
      primary.loseWal(random.pick(["dropped", "invalidated"]), writtenBytes);
    },
    "clock: jump": () => clock.jumpWall(random.pick([-3_600_000, -1, 3_600_000])),
  };
}
