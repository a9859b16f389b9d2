/**
 * One base backup, start to proof (design section 3): `pg_backup_start` -> tablespaces -> data directory -> control file,
 * last -> `pg_backup_stop` -> snapshots of the parts, flushed -> metadata snapshot, flushed: the commit record -> WAL of the
 * backup in the archive. Whatever fails before the commit leaves no backup: the SQL session closes, which makes PostgreSQL
 * forget it, and what was uploaded is garbage. After the commit only the wait for WAL is left.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { utf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import {
  DIRECTORY_PREFIX,
  type DirectoryEntry,
  encodeDirectory,
  summarize,
} from "../../codec/kopia/directory.ts";
import { encodeSnapshot, type Snapshot, snapshotLabels } from "../../codec/kopia/snapshot.ts";
import {
  type BackupMetadata,
  backupNameAt,
  checkBackupName,
  encodeBackupMetadata,
} from "../../domain/backup.ts";
import { parseBackupLabel } from "../../domain/backup_label.ts";
import { CONTROL_FILE } from "../../domain/data_directory.ts";
import { lastSegmentStart, type Lsn, segmentName } from "../../domain/lsn.ts";
import type { BackupSession, BackupStop, Tablespace } from "../../ports/postgres.ts";
import { backupTags, METADATA_FILE, type PartContent, TAG_NAME } from "../catalog/mod.ts";
import {
  measureTree,
  ObjectWriter,
  resolveDirectory,
  type Select,
  uploadTree,
} from "../objects/mod.ts";
import { readControlFile } from "./control_file.ts";
import { selectDataDirectory, selectTablespace } from "./exclusions.ts";
import { ProgressMeter } from "./progress_meter.ts";
import type { BackupDeps, BackupRequest, BackupResult } from "./types.ts";
import { waitForWal } from "./wal_wait.ts";

/** Contents being sent, over all files: enough to fill a fast network, little beside PostgreSQL. */
const BYTES_IN_FLIGHT_MAX = 32 << 20;

/**
 * Takes a full backup. Throws `conflict` when the name is taken, `source` for what PostgreSQL or its files refuse,
 * `timeout` when the backup is stored but its WAL does not arrive.
 */
export async function runBackup(
  deps: BackupDeps,
  request: BackupRequest,
  options: Waiting,
): Promise<BackupResult> {
  const { clock } = deps;
  const name = request.name ?? backupNameAt(clock.nowMs());
  checkBackupName(name);
  const run = new BackupRun(deps, request, name);
  const log = deps.log.with({ component: "backup", backup: name });
  const startMs = clock.monotonicMs();
  await run.refuseExisting(options);
  log.info("Base backup starts");
  const metadata = await run.copy(options);
  await run.commit(metadata, options);
  log.info("Base backup is stored", { startWal: metadata.startWal, endWal: metadata.endWal });
  run.meter.enter("waiting_for_wal");
  const { startWal, endWal, timeline, segmentSizeBytes } = metadata;
  await waitForWal({ wal: deps.wal, clock, log, timeoutMs: request.walTimeoutMs }, {
    cluster: request.identity.cluster,
    backupName: name,
    timeline,
    startWal,
    endWal,
    segmentSizeBytes,
  }, options);
  run.meter.enter("done");
  const seconds = (clock.monotonicMs() - startMs) / 1000;
  const statistics = { ...run.meter.counts, ...run.writer.statistics, seconds };
  log.info("Base backup is complete", { ...statistics });
  return { metadata, statistics };
}

interface Tree {
  readonly content: PartContent;
  readonly description: string;
  readonly tablespaceName?: string;
  /** As PostgreSQL names it. */
  readonly path: string;
  /** Where it is, links followed. */
  readonly directory: string;
  readonly select: Select;
}

class BackupRun {
  readonly meter: ProgressMeter;
  readonly writer: ObjectWriter;
  readonly #deps: BackupDeps;
  readonly #request: BackupRequest;
  readonly #name: string;
  readonly #parts: Snapshot[] = [];

  constructor(deps: BackupDeps, request: BackupRequest, name: string) {
    this.#deps = deps;
    this.#request = request;
    this.#name = name;
    this.meter = new ProgressMeter(request.onProgress);
    this.writer = new ObjectWriter(deps.repository, { bytesInFlightMax: BYTES_IN_FLIGHT_MAX });
  }

  async refuseExisting(options: Waiting): Promise<void> {
    const { cluster } = this.#request.identity;
    const labels = { type: "snapshot", hostname: cluster, [TAG_NAME]: this.#name };
    const existing = await this.#deps.repository.findManifests(labels, options);
    if (existing.length > 0) {
      throw new AppError(
        "conflict",
        `Take backup "${this.#name}" of cluster "${cluster}": the name is in use`,
        { hint: "choose another name, or leave it to klio" },
      );
    }
  }

  /** Everything that needs the SQL session; the session is closed when it returns or throws. */
  async copy(options: Waiting): Promise<BackupMetadata> {
    const { source, files, clock } = this.#deps;
    await using session = await source.connect(options);
    const server = { dataDirectory: session.dataDirectory, systemId: session.systemId };
    await readControlFile(files, server, options);
    const startedAtSeconds = Math.floor(clock.nowMs() / 1000);
    const startLsn = await session.startBackup({ label: this.#name, fast: true }, options);
    const tablespaces = await session.tablespaces(options);
    const trees = await this.#trees(session, tablespaces);
    this.meter.enter("measuring");
    for (const tree of trees) {
      this.meter.expect(await measureTree({ files, select: tree.select }, tree.directory, options));
    }
    this.meter.enter("copying");
    for (const tree of trees) await this.#uploadTree(tree, options);
    await this.#uploadControlFile(server, options);
    const stop = await session.stopBackup(options);
    return this.#metadata(session, tablespaces, { startLsn, stop, startedAtSeconds });
  }

  /** Parts first, durable, then the record that makes them a backup. */
  async commit(metadata: BackupMetadata, options: Waiting): Promise<void> {
    const { repository } = this.#deps;
    this.meter.enter("committing");
    for (const part of this.#parts) await this.#put(part, options);
    await repository.flush(options);
    await this.#put(await this.#record(metadata, options), options);
    await repository.flush(options);
  }

  async #trees(session: BackupSession, tablespaces: readonly Tablespace[]): Promise<Tree[]> {
    const { files } = this.#deps;
    const major = Math.floor(session.serverVersion / 10000);
    const trees: Tree[] = [];
    for (const { name, oid, location } of tablespaces) {
      trees.push({
        content: "tablespace",
        description: `tablespace ${name} (${oid})`,
        tablespaceName: name,
        path: location,
        directory: await resolveDirectory(files, location),
        select: selectTablespace(major),
      });
    }
    const { dataDirectory } = session;
    const locations = new Set(tablespaces.map(({ location }) => location));
    trees.push({
      content: "pgdata",
      description: "pgdata",
      path: dataDirectory,
      directory: await resolveDirectory(files, dataDirectory),
      select: selectDataDirectory(dataDirectory, locations),
    });
    return trees;
  }

  async #uploadTree(tree: Tree, options: Waiting): Promise<void> {
    const { files } = this.#deps;
    const { parallelFiles } = this.#request;
    const upload = {
      files,
      writer: this.writer,
      select: tree.select,
      parallelFiles,
      observer: this.meter,
    };
    await this.#part(tree, () => uploadTree(upload, tree.directory, options));
  }

  async #uploadControlFile(
    server: { readonly dataDirectory: string; readonly systemId: string },
    options: Waiting,
  ): Promise<void> {
    const { files } = this.#deps;
    const path = `${server.dataDirectory}/${CONTROL_FILE}`;
    const part = { content: "controldata", description: "control data file", path } as const;
    await this.#part(part, async () => {
      const info = await files.stat(path);
      const content = await readControlFile(files, server, options);
      const entry = await this.#storeFile("pg_control", content, options);
      this.meter.onBytes(content.length);
      this.meter.onFile();
      const { mode, uid, gid, mtimeMs } = info;
      return { ...entry, mode, uid, gid, mtimeNs: nanoseconds(mtimeMs) };
    });
  }

  async #record(metadata: BackupMetadata, options: Waiting): Promise<Snapshot> {
    const path = `${metadata.dataDirectory}_meta`;
    const timeNs = nanoseconds(this.#deps.clock.nowMs());
    const file = await this.#storeFile(
      METADATA_FILE,
      utf8(encodeBackupMetadata(metadata)),
      options,
    );
    const summary = summarize([file], timeNs);
    const object = await this.writer.write([encodeDirectory({ entries: [file], summary })], {
      signal: options.signal,
      prefix: DIRECTORY_PREFIX,
    });
    const root: DirectoryEntry = {
      ...file,
      name: path.slice(path.lastIndexOf("/") + 1),
      kind: "directory",
      mode: 0o700,
      sizeBytes: 0,
      objectId: object.objectId,
      summary,
    };
    const part = { content: "metadata", description: `metadata for ${this.#name}`, path } as const;
    return this.#snapshot(part, timeNs, root);
  }

  async #storeFile(name: string, content: Uint8Array, options: Waiting): Promise<DirectoryEntry> {
    const { objectId, lengthBytes } = await this.writer.write([content], options);
    return {
      name,
      kind: "file",
      mode: 0o600,
      sizeBytes: lengthBytes,
      mtimeNs: nanoseconds(this.#deps.clock.nowMs()),
      uid: 0,
      gid: 0,
      objectId,
      summary: undefined,
    };
  }

  async #part(
    part: Pick<Tree, "content" | "description" | "tablespaceName" | "path">,
    upload: () => Promise<DirectoryEntry>,
  ): Promise<void> {
    const startTimeNs = nanoseconds(this.#deps.clock.nowMs());
    this.#parts.push(this.#snapshot(part, startTimeNs, await upload()));
  }

  #snapshot(
    part: Pick<Tree, "content" | "description" | "tablespaceName" | "path">,
    startTimeNs: bigint,
    root: DirectoryEntry,
  ): Snapshot {
    const { identity } = this.#request;
    return {
      source: { host: identity.cluster, user: identity.user, path: part.path },
      description: part.description,
      startTimeNs,
      endTimeNs: nanoseconds(this.#deps.clock.nowMs()),
      incomplete: "",
      root,
      tags: backupTags({ ...part, name: this.#name }),
      pins: [],
    };
  }

  async #put(snapshot: Snapshot, options: Waiting): Promise<void> {
    await this.#deps.repository.putManifest({
      labels: snapshotLabels(snapshot),
      json: encodeSnapshot(snapshot),
    }, options);
  }

  #metadata(
    session: BackupSession,
    tablespaces: readonly Tablespace[],
    span: { readonly startLsn: Lsn; readonly stop: BackupStop; readonly startedAtSeconds: number },
  ): BackupMetadata {
    const { startLsn, stop, startedAtSeconds } = span;
    const { segmentSizeBytes } = session;
    const label = parseBackupLabel(stop.backupLabel);
    if (label.startLsn !== startLsn) {
      throw new AppError(
        "protocol",
        `Read backup label of "${this.#name}": it is that of another backup`,
      );
    }
    const { timeline } = label;
    const end = lastSegmentStart(stop.lsn, segmentSizeBytes);
    return {
      name: this.#name,
      clusterName: this.#request.identity.cluster,
      startLsn,
      endLsn: stop.lsn,
      startWal: segmentName(timeline, startLsn, segmentSizeBytes),
      endWal: segmentName(timeline, end, segmentSizeBytes),
      timeline,
      segmentSizeBytes,
      backupLabel: stop.backupLabel,
      tablespaceMap: stop.tablespaceMap,
      dataDirectory: session.dataDirectory,
      tablespaces: tablespaces.map(({ name, oid, location }) => ({ name, oid, path: location })),
      startedAtSeconds,
      stoppedAtSeconds: Math.ceil(this.#deps.clock.nowMs() / 1000),
      systemId: session.systemId,
      pgVersion: session.serverVersion,
    };
  }
}

function nanoseconds(ms: number): bigint {
  return BigInt(Math.trunc(ms)) * 1_000_000n;
}
