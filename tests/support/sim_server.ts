/**
 * The server's process and machine in a simulated world: the real archive over a disk in memory. It can be killed, lose
 * power (then only some of what was not synced survives), and starts again by itself as an orchestrator would have it.
 *
 * @module
 */

import { fromUtf8, utf8 } from "../../src/base/bytes.ts";
import type { Clock } from "../../src/base/clock.ts";
import { describeError } from "../../src/base/failure.ts";
import type { Logger } from "../../src/base/log.ts";
import { WalArchive } from "../../src/features/walarchive/mod.ts";
import type { Files } from "../../src/ports/files.ts";
import { MemoryFiles } from "./memory_files.ts";
import { mortalFiles, type SlowCall } from "./mortal_files.ts";
import type { SeededRandom } from "./seeded_random.ts";
import { TRUSTING } from "./trusting_verification.ts";

/** Where the archive is. */
export const SIM_ROOT = "/data/wal";
/** The archive key: deriving one from a password takes longer than a whole world. */
export const SIM_KEY = new Uint8Array(32).fill(7);
const RESTART_MS = 1000;

/** What a {@link SimServer} needs. */
export interface SimServerOptions {
  readonly clock: Clock;
  readonly random: SeededRandom;
  readonly log: Logger;
  /** Ends the world. */
  readonly signal: AbortSignal;
  readonly trace: (text: string) => void;
  /** Power failed; this is what survived, to be looked at and thrown away. */
  readonly onPowerLoss: (survived: MemoryFiles) => void;
  /** The process died in the middle of its work, as {@link SimServer.killAfterChecks} wanted. */
  readonly onKilled: () => void;
  /** Tests of the tests: what the disk only pretends. */
  readonly pretended: SlowCall | undefined;
  /** Test of the tests: gaps are not kept. */
  readonly forgetsGaps: boolean;
}

/** A disk with an archive that has its key. */
export async function simVolume(): Promise<MemoryFiles> {
  const files = new MemoryFiles();
  await files.makeDirectory(SIM_ROOT);
  await files.writeFileAtomic(`${SIM_ROOT}/wal.key`, utf8("stands for the key"));
  return files;
}

interface Life {
  isDead: boolean;
  archive: WalArchive | undefined;
}

/** See the module comment. */
export class SimServer {
  disk: MemoryFiles;
  /** How long a sync takes, at most. */
  syncMsMax = 4;
  /** Looks at whether the process lives, two per call of the file system, until it is killed between two steps of its work. */
  killAfterChecks = Number.POSITIVE_INFINITY;
  readonly #options: SimServerOptions;
  #life: Life | undefined;

  constructor(disk: MemoryFiles, options: SimServerOptions) {
    this.disk = disk;
    this.#options = options;
  }

  /** Undefined while it is down. */
  get archive(): WalArchive | undefined {
    return this.#life?.archive;
  }

  get isUp(): boolean {
    return this.#life !== undefined;
  }

  /** Starts it, trying again until the archive opens or it is killed. */
  async start(): Promise<void> {
    if (this.#life !== undefined) return;
    const { clock, random, log, signal, trace } = this.#options;
    const life: Life = { isDead: false, archive: undefined };
    this.#life = life;
    while (!life.isDead && !signal.aborted) {
      try {
        const files = this.#filesOf(life);
        const options = {
          files: this.#options.forgetsGaps ? forgetGaps(files) : files,
          clock,
          random: random.fork(),
          log,
          root: SIM_ROOT,
          beginVerification: TRUSTING,
        };
        const archive = await WalArchive.openWithKey(options, SIM_KEY);
        if (!life.isDead) life.archive = archive;
        trace("server: up");
        return;
      } catch (error) {
        if (life.isDead) return;
        trace(`server: cannot start: ${describeError(error)}`);
        await clock.sleep(RESTART_MS, { signal }).catch(() => {/* the world ended */});
      }
    }
  }

  #filesOf(life: Life) {
    const { clock, random, signal, pretended } = this.#options;
    const disk = this.disk;
    return mortalFiles({
      files: disk,
      isDead: () => {
        if (!life.isDead && --this.killAfterChecks <= 0) {
          this.killAfterChecks = Number.POSITIVE_INFINITY;
          this.kill();
          this.#options.onKilled();
        }
        return life.isDead;
      },
      wait: async (call) => {
        if (call !== "other") await clock.sleep(random.integer(0, this.syncMsMax), { signal });
      },
      onFailure: () => {
        if (disk.crashed && !life.isDead) this.losePower();
      },
      ...(pretended === undefined ? {} : { pretended }),
    });
  }

  /** The process dies; its machine and the page cache live. */
  kill(): void {
    if (this.#life === undefined) return;
    this.#life.isDead = true;
    this.#life = undefined;
  }

  /** The machine dies. */
  losePower(): void {
    this.kill();
    const seed = this.#options.random.integer(0, 1 << 30);
    const survived = this.disk.afterCrash(seed);
    this.disk = this.disk.afterCrash(seed);
    this.#options.onPowerLoss(survived);
  }
}

/** Whoever writes what is known of a cluster finds the gaps gone. */
function forgetGaps(files: Files): Files {
  return {
    ...files,
    writeFileAtomic: (path, content, permissions) => {
      const isState = path.endsWith("/cluster.json");
      const kept = isState
        ? utf8(JSON.stringify({ ...JSON.parse(fromUtf8(content)), gaps: [] }))
        : content;
      return files.writeFileAtomic(path, kept, permissions);
    },
  };
}
