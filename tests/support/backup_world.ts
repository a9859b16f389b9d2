/**
 * A small PostgreSQL cluster in memory for tests of backup, restore and catalogue: its files, a scripted SQL session, a
 * repository and a WAL archive. Nothing here speaks to a real server.
 *
 * @module
 */

import type { Waiting } from "../../src/base/abort.ts";
import { SILENT } from "../../src/base/log.ts";
import { type Lsn, parseLsn } from "../../src/domain/lsn.ts";
import type { BackupDeps, BackupRequest } from "../../src/features/backup/mod.ts";
import type { RestoreDeps, RestoreRequest } from "../../src/features/restore/mod.ts";
import type { Files } from "../../src/ports/files.ts";
import type {
  BackupSession,
  BackupSource,
  BackupStop,
  Tablespace,
} from "../../src/ports/postgres.ts";
import type { RepositorySession } from "../../src/ports/repository_session.ts";
import type { BackupWalRange, WalGap } from "../../src/ports/wal_server.ts";
import { FakeClock } from "./fake_clock.ts";
import { MemoryFiles } from "./memory_files.ts";
import { MemoryRepository, type MemoryRepositoryOptions } from "./memory_repository.ts";
import { SeededRandom } from "./seeded_random.ts";

/** Never aborts. */
export const WAITING: Waiting = { signal: new AbortController().signal };

const SYSTEM_ID = 7_300_000_000_000_000_001n;
export const DATA_DIRECTORY = "/pg/data";
export const FAST_SPACE = "/spaces/fast";
export const ODD_NAME = "a b'\"\\\n<&>é😀";

/** Writes a file with its missing directories. */
export async function putFile(
  files: Files,
  path: string,
  content: Uint8Array | string,
): Promise<void> {
  await files.makeDirectory(path.slice(0, path.lastIndexOf("/")), 0o700);
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  await files.writeFileAtomic(path, bytes, 0o600);
}

/** `global/pg_control` as far as klio reads it. */
export function controlFile(systemId: bigint = SYSTEM_ID): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8192).fill(7, 100, 200);
  new DataView(bytes.buffer).setBigUint64(0, systemId, true);
  return bytes;
}

/** All names under `root` with what they hold: equal maps are equal trees. Times only of files. */
export async function treeOf(files: Files, root: string, path = ""): Promise<Map<string, string>> {
  const tree = new Map<string, string>();
  for (const name of await files.list(root + path)) {
    const child = `${path}/${name}`;
    const info = await files.stat(root + child);
    const mode = info.mode.toString(8);
    if (info.kind === "directory") {
      tree.set(child, `directory ${mode}`);
      for (const [key, value] of await treeOf(files, root, child)) tree.set(key, value);
    } else if (info.kind === "symlink") {
      tree.set(child, `link ${await files.readSymlink(root + child)}`);
    } else {
      const content = await files.readFile(root + child);
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content)).toHex();
      tree.set(child, `file ${mode} ${info.sizeBytes} ${info.mtimeMs} ${digest}`);
    }
  }
  return tree;
}

/** A {@link BackupSource} that records its calls; `before` may act, wait or throw ahead of each. */
export class ScriptedSource implements BackupSource {
  readonly calls: string[] = [];
  tablespaces: readonly Tablespace[] = [];
  systemId = String(SYSTEM_ID);
  startLsn: Lsn = parseLsn("0/2000028");
  stopLsn: Lsn = parseLsn("0/2000100");
  timeline = 1;
  /** undefined: one that fits. */
  backupLabel: string | undefined;
  before: (call: string) => void | Promise<void> = () => {};

  async connect(options: Waiting): Promise<BackupSession> {
    await this.#step("connect", options);
    const step = (call: string, waiting: Waiting) => this.#step(call, waiting);
    const { startLsn, stopLsn } = this;
    const { calls, tablespaces } = this;
    const stop: BackupStop = {
      lsn: stopLsn,
      backupLabel: this.backupLabel ??
        `START WAL LOCATION: ${startLsnText(startLsn)} (file 000000010000000000000002)\n` +
          `CHECKPOINT LOCATION: 0/2000060\nLABEL: test\nSTART TIMELINE: ${this.timeline}\n`,
      tablespaceMap: tablespaces.map(({ oid, location }) => `${oid} ${location}\n`).join(""),
    };
    return {
      serverVersion: 170002,
      systemId: this.systemId,
      dataDirectory: DATA_DIRECTORY,
      segmentSizeBytes: 16 << 20,
      dataChecksums: true,
      async tablespaces(waiting) {
        await step("tablespaces", waiting);
        return tablespaces;
      },
      async startBackup(request, waiting) {
        await step(`start ${request.label} ${request.fast ? "fast" : "spread"}`, waiting);
        return startLsn;
      },
      async stopBackup(waiting) {
        await step("stop", waiting);
        return stop;
      },
      [Symbol.asyncDispose]() {
        calls.push("close");
        return Promise.resolve();
      },
    };
  }

  async #step(call: string, options: Waiting): Promise<void> {
    options.signal.throwIfAborted();
    this.calls.push(call);
    await this.before(call);
    options.signal.throwIfAborted();
  }
}

function startLsnText(value: Lsn): string {
  return `${(value >> 32n).toString(16)}/${(value & 0xffff_ffffn).toString(16)}`.toUpperCase();
}

/** Everything together. */
export class BackupWorld {
  readonly files = new MemoryFiles();
  readonly clock = new FakeClock();
  readonly source = new ScriptedSource();
  readonly repository: MemoryRepository;
  readonly ranges: BackupWalRange[] = [];
  /** Answers of the WAL archive in turn; the last one stays. */
  walAnswers: Array<readonly string[] | Error> = [[]];
  walGaps: WalGap[] = [];

  constructor(options: MemoryRepositoryOptions = {}) {
    this.repository = new MemoryRepository({ clock: this.clock, ...options });
  }

  /** A cluster with all that a backup has to mind. */
  static async create(options: MemoryRepositoryOptions = {}): Promise<BackupWorld> {
    const world = new BackupWorld(options);
    const { files } = world;
    const random = new SeededRandom(5);
    const put = (path: string, content: Uint8Array | string) =>
      putFile(files, `${DATA_DIRECTORY}/${path}`, content);
    await put("PG_VERSION", "17\n");
    await put("postgresql.conf", "# none\n");
    await put("postgresql.auto.conf", "recovery_target_xid = '7'\n");
    await put("global/pg_control", controlFile());
    await put("global/1262", random.bytes(8192));
    await put("base/5/1259", random.bytes(300_000));
    await put("base/5/1260", new Uint8Array(131_072));
    await put("base/5/empty", "");
    await put(`base/5/${ODD_NAME}`, "odd");
    await put("pg_xact/0000", random.bytes(8192));
    await put("pg_wal/000000010000000000000002", "wal");
    await put("pg_replslot/klio/state", "slot");
    await put("log/today.log", "log");
    await put("postmaster.pid", "1");
    await put("backup_label.old", "old");
    await files.setMode(`${DATA_DIRECTORY}/base/5`, 0o2770);
    await files.setMode(`${DATA_DIRECTORY}/PG_VERSION`, 0o440);
    await files.makeSymlink("/etc/elsewhere", `${DATA_DIRECTORY}/extra`);
    await putFile(files, `${FAST_SPACE}/PG_17_202406281/5/16400`, random.bytes(20_000));
    await putFile(files, `${FAST_SPACE}/PG_16_202307071/5/1`, "another server");
    await files.makeDirectory(`${DATA_DIRECTORY}/pg_tblspc`, 0o700);
    await files.makeSymlink(FAST_SPACE, `${DATA_DIRECTORY}/pg_tblspc/16384`);
    world.source.tablespaces = [{ oid: "16384", name: "fast", location: FAST_SPACE }];
    return world;
  }

  session(): RepositorySession {
    return this.repository.openSession({ user: "klio", host: "cluster-a" });
  }

  backupDeps(repository: RepositorySession): BackupDeps {
    const { source, files, clock, ranges } = this;
    const closeBackup = (range: BackupWalRange) => {
      ranges.push(range);
      const answer = this.walAnswers.length > 1 ? this.walAnswers.shift() : this.walAnswers[0];
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer ?? []);
    };
    const metadata = () => Promise.resolve({ systemId: source.systemId, gaps: this.walGaps });
    return { source, files, repository, wal: { closeBackup, metadata }, clock, log: SILENT };
  }

  backupRequest(more: Partial<BackupRequest> = {}): BackupRequest {
    return {
      identity: { user: "klio", cluster: "cluster-a" },
      name: "b1",
      parallelFiles: 3,
      walTimeoutMs: 10_000,
      ...more,
    };
  }

  restoreDeps(repository: RepositorySession): RestoreDeps {
    return { repository, files: this.files, clock: this.clock, log: SILENT };
  }

  restoreRequest(more: Partial<RestoreRequest> = {}): RestoreRequest {
    return {
      cluster: "cluster-a",
      target: { kind: "latest" },
      targetDirectory: "/new/data",
      tablespacePaths: new Map([["fast", "/new/fast"]]),
      parallelFiles: 3,
      ...more,
    };
  }
}
