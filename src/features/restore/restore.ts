/**
 * Restores a base backup into an empty directory: tablespaces -> data directory -> the directories that PostgreSQL
 * needs -> tablespace links -> backup_label and tablespace_map -> recovery settings -> everything synced -> control file, last.
 * PostgreSQL does not start without a control file, so whatever interrupts a restore leaves a directory that cannot be
 * mistaken for a database.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { type Bytes, concat, utf8 } from "../../base/bytes.ts";
import { AppError, isKind } from "../../base/failure.ts";
import type { DirectoryEntry } from "../../codec/kopia/directory.ts";
import type { BackupMetadata, BackupTablespace } from "../../domain/backup.ts";
import { parseBackupLabel } from "../../domain/backup_label.ts";
import {
  CONTROL_FILE,
  EMPTY_DIRECTORIES,
  LOG_DIRECTORIES,
  TABLESPACE_LINKS,
  TRANSIENT_FILES,
} from "../../domain/data_directory.ts";
import { chooseBackup } from "../../domain/recovery_target.ts";
import type { Files } from "../../ports/files.ts";
import { type BackupPart, type CatalogBackup, listBackups } from "../catalog/mod.ts";
import { ObjectReader } from "../objects/mod.ts";
import { recoverySettingsLines } from "./recovery_settings.ts";
import {
  downloadTree,
  type RestoreVerdict,
  setAttributes,
  type TreeDownload,
} from "./tree_download.ts";
import type { RestoreDeps, RestoreProgress, RestoreRequest, RestoreResult } from "./types.ts";

/** Fetched ahead of the disk, per file: eight contents of 128 KiB. */
const BYTES_AHEAD_MAX = 1 << 20;
/** `PG_CONTROL_FILE_SIZE`. */
const CONTROL_FILE_BYTES_MAX = 8192;

/**
 * Restores a backup. Throws `conflict` when a target directory is not empty (nothing was touched), `not_found` when no
 * backup fits, `corruption` when stored data is wrong.
 */
export async function runRestore(
  deps: RestoreDeps,
  request: RestoreRequest,
  options: Waiting,
): Promise<RestoreResult> {
  const { files, clock } = deps;
  const startMs = clock.monotonicMs();
  const target = absolute(request.targetDirectory, "target directory");
  await refuseNonEmpty(files, target);
  const backup = await choose(deps, request, options);
  const { metadata } = backup;
  checkLabel(metadata);
  const log = deps.log.with({ component: "restore", backup: metadata.name });
  const places = tablespacePlaces(metadata.tablespaces, request, target);
  for (const { path } of places) await refuseNonEmpty(files, path);
  const settings = request.recovery === undefined
    ? undefined
    : recoverySettingsLines(request.recovery, request.target, metadata.name);
  const run = new RestoreRun(deps, request, backup, target);
  log.info("Restore starts", { files: backup.files, bytes: backup.sizeBytes, directory: target });
  const control = await run.readControlFile(options);
  run.enter("writing");
  for (const place of places) await run.writeTablespace(place, options);
  await run.writeDataDirectory(options);
  run.enter("finishing");
  await run.completeDirectories();
  await run.linkTablespaces(places);
  await run.writeLabels(places);
  if (settings !== undefined) await run.configureRecovery(settings);
  await run.settle();
  options.signal.throwIfAborted();
  await run.writeControlFile(control);
  run.enter("done");
  const seconds = (clock.monotonicMs() - startMs) / 1000;
  log.info("Restore is complete", { ...run.counts, seconds });
  return { metadata, ...run.counts, seconds };
}

/** Without a good label PostgreSQL would start from a wrong checkpoint: silent corruption. */
function checkLabel(metadata: BackupMetadata): void {
  let cause: unknown;
  try {
    if (parseBackupLabel(metadata.backupLabel).startLsn === metadata.startLsn) return;
  } catch (error) {
    cause = error;
  }
  throw new AppError(
    "corruption",
    `Restore backup "${metadata.name}": its backup label does not name the start of the backup`,
    { cause },
  );
}

/** A tablespace and where it goes. */
interface TablespacePlace {
  readonly tablespace: BackupTablespace;
  readonly path: string;
}

async function choose(
  deps: RestoreDeps,
  request: RestoreRequest,
  options: Waiting,
): Promise<CatalogBackup> {
  const { cluster, backupName: name, target } = request;
  const { backups, unreadable } = await listBackups(deps.repository, {
    signal: options.signal,
    cluster,
  });
  const broken = unreadable.find((backup) => backup.name === name);
  if (broken !== undefined) throw broken.error;
  const incomplete = backups.find((backup) =>
    backup.metadata.name === name && backup.problems.length > 0
  );
  if (incomplete !== undefined) {
    throw new AppError(
      "corruption",
      `Restore backup "${name}": it is incomplete: ${incomplete.problems.join(", ")}`,
    );
  }
  const complete = backups.filter(({ problems }) => problems.length === 0);
  const candidates = complete.map((backup) => ({ ...backup.metadata, backup }));
  return chooseBackup(candidates, { name, target }).backup;
}

function tablespacePlaces(
  tablespaces: readonly BackupTablespace[],
  request: RestoreRequest,
  target: string,
): TablespacePlace[] {
  const known = new Set(tablespaces.map(({ name }) => name));
  for (const name of request.tablespacePaths.keys()) {
    if (!known.has(name)) {
      throw new AppError("usage", `Place tablespace "${name}": the backup has no such tablespace`, {
        hint: known.size === 0 ? "it has none" : `it has: ${[...known].join(", ")}`,
      });
    }
  }
  const taken = [target];
  return tablespaces.map((tablespace) => {
    const path = absolute(
      request.tablespacePaths.get(tablespace.name) ?? tablespace.path,
      `location of tablespace "${tablespace.name}"`,
    );
    const other = taken.find((used) => within(path, used) || within(used, path));
    if (other !== undefined) {
      throw new AppError(
        "usage",
        `Place tablespace "${tablespace.name}" in "${path}": it overlaps "${other}"`,
      );
    }
    taken.push(path);
    return { tablespace, path };
  });
}

class RestoreRun {
  readonly #files: Files;
  readonly #request: RestoreRequest;
  readonly #backup: CatalogBackup;
  readonly #target: string;
  readonly #reader: ObjectReader;
  #phase: RestoreProgress["phase"] = "choosing";
  #bytes = 0;
  #written = 0;

  constructor(deps: RestoreDeps, request: RestoreRequest, backup: CatalogBackup, target: string) {
    this.#files = deps.files;
    this.#request = request;
    this.#backup = backup;
    this.#target = target;
    this.#reader = new ObjectReader(deps.repository, { bytesAheadMax: BYTES_AHEAD_MAX });
  }

  get counts(): { bytes: number; files: number } {
    return { bytes: this.#bytes, files: this.#written };
  }

  enter(phase: RestoreProgress["phase"]): void {
    this.#phase = phase;
    this.#tell();
  }

  /** Before anything is written: a backup without a good control file is no backup. */
  async readControlFile(options: Waiting): Promise<Bytes> {
    const { root } = this.#part("controldata");
    const content = await this.#reader.readAll(root.objectId, {
      signal: options.signal,
      sizeBytesMax: CONTROL_FILE_BYTES_MAX,
    });
    if (root.kind !== "file" || content.length !== root.sizeBytes) {
      throw new AppError(
        "corruption",
        `Read the control file of backup "${this.#backup.metadata.name}": ${content.length} bytes, wanted ${root.sizeBytes}`,
      );
    }
    return content;
  }

  async writeTablespace(place: TablespacePlace, options: Waiting): Promise<void> {
    const { root } = this.#part("tablespace", place.tablespace.name);
    await downloadTree(this.#download(() => "keep"), root, place.path, options);
  }

  async writeDataDirectory(options: Waiting): Promise<void> {
    const { root } = this.#part("pgdata");
    await downloadTree(this.#download(selectForRestore), root, this.#target, options);
  }

  /** Backups of upstream leave `pg_wal` out; PostgreSQL creates none of these. */
  async completeDirectories(): Promise<void> {
    const { mode, mtimeNs } = this.#part("pgdata").root;
    for (const name of EMPTY_DIRECTORIES) {
      const path = `${this.#target}/${name}`;
      if (await exists(this.#files, path)) continue;
      await this.#files.makeDirectory(path, 0o700);
      await setAttributes(this.#owned, path, { mode, mtimeNs });
    }
  }

  async linkTablespaces(places: readonly TablespacePlace[]): Promise<void> {
    if (places.length === 0) return;
    const links = `${this.#target}/${TABLESPACE_LINKS}`;
    await this.#files.makeDirectory(links, 0o700);
    for (const { tablespace, path } of places) {
      await this.#files.makeSymlink(path, `${links}/${tablespace.oid}`);
    }
    await this.#files.syncDirectory(links);
  }

  async writeLabels(places: readonly TablespacePlace[]): Promise<void> {
    await this.#writeFile("backup_label", utf8(this.#backup.metadata.backupLabel));
    if (places.length === 0) return;
    const lines = places.map(({ tablespace, path }) =>
      `${tablespace.oid} ${path.replace(/[\\\r\n]/g, "\\$&")}\n`
    );
    await this.#writeFile("tablespace_map", utf8(lines.join("")));
  }

  async configureRecovery(settings: string): Promise<void> {
    const name = "postgresql.auto.conf";
    const path = `${this.#target}/${name}`;
    const present = await exists(this.#files, path)
      ? await this.#files.readFile(path)
      : new Uint8Array();
    await this.#writeFile(name, concat([present, utf8(`\n${settings}`)]));
    await this.#writeFile("recovery.signal", new Uint8Array());
  }

  /** The root again, with all that came after its tree. */
  async settle(): Promise<void> {
    const { root } = this.#part("pgdata");
    await setAttributes(this.#owned, this.#target, root);
    await this.#files.syncDirectory(this.#target);
  }

  /** The commit of the restore. Should it fail half-way, the file must not stay. */
  async writeControlFile(content: Bytes): Promise<void> {
    const path = `${this.#target}/${CONTROL_FILE}`;
    await this.#files.makeDirectory(path.slice(0, path.lastIndexOf("/")), 0o700);
    try {
      await this.#writeFile(CONTROL_FILE, content);
    } catch (error) {
      await removeIfPossible(this.#files, path);
      throw error;
    }
    this.#countBytes(content.length);
    this.#countFile();
  }

  get #owned(): Pick<TreeDownload, "files" | "owner"> {
    return { files: this.#files, owner: this.#request.owner };
  }

  #download(select: TreeDownload["select"]): TreeDownload {
    return {
      ...this.#owned,
      reader: this.#reader,
      parallelFiles: this.#request.parallelFiles,
      select,
      onBytes: (count) => this.#countBytes(count),
      onFile: () => this.#countFile(),
    };
  }

  async #writeFile(name: string, content: Uint8Array): Promise<void> {
    const { owner } = this.#request;
    const path = `${this.#target}/${name}`;
    await this.#files.writeFileAtomic(path, content, 0o600);
    if (owner !== undefined) await this.#files.setOwner(path, owner.uid, owner.gid);
  }

  #part(content: BackupPart["content"], tablespaceName?: string): BackupPart {
    const part = this.#backup.parts.find((candidate) =>
      candidate.content === content && candidate.tablespaceName === tablespaceName
    );
    if (part !== undefined) return part;
    const { name } = this.#backup.metadata;
    throw new AppError("corruption", `Restore backup "${name}": missing ${content}`);
  }

  #countBytes(count: number): void {
    this.#bytes += count;
    this.#tell();
  }

  #countFile(): void {
    this.#written++;
    this.#tell();
  }

  #tell(): void {
    this.#request.onProgress?.({
      phase: this.#phase,
      bytes: this.#bytes,
      bytesTotal: this.#backup.sizeBytes,
      files: this.#written,
      filesTotal: this.#backup.files,
    });
  }
}

/** What of a stored data directory is written; backups of others hold more than ours. */
function selectForRestore(path: string, entry: DirectoryEntry): RestoreVerdict {
  if (path === CONTROL_FILE || TRANSIENT_FILES.has(path)) return "skip";
  // A link of the source would lead into the tablespace of the source: ours are made from the metadata.
  if (entry.kind === "symlink" && path.startsWith(`${TABLESPACE_LINKS}/`)) return "skip";
  return EMPTY_DIRECTORIES.has(path) || LOG_DIRECTORIES.has(path) ? "empty" : "keep";
}

async function refuseNonEmpty(files: Files, directory: string): Promise<void> {
  let names: readonly string[];
  try {
    names = await files.list(directory);
  } catch (error) {
    if (isKind(error, "not_found") && !await exists(files, directory)) return;
    throw error;
  }
  if (names.length > 0) {
    throw new AppError(
      "conflict",
      `Restore into "${directory}": it has ${names.length} entries, wanted an empty or absent directory`,
      { hint: "choose another directory, or empty this one" },
    );
  }
}

async function exists(files: Files, path: string): Promise<boolean> {
  try {
    await files.stat(path);
    return true;
  } catch (error) {
    if (isKind(error, "not_found")) return false;
    throw error;
  }
}

async function removeIfPossible(files: Files, path: string): Promise<void> {
  try {
    await files.remove(path);
  } catch {
    // The failure that brought us here is what the caller hears of.
  }
}

function absolute(path: string, what: string): string {
  if (!path.startsWith("/") || path.split("/").includes("..")) {
    throw new AppError("usage", `Use ${what} "${path}": wanted an absolute path without ".."`);
  }
  return path.replace(/\/{2,}/g, "/").replace(/(?<=.)\/$/, "");
}

/** True when `path` is `directory` or inside it. */
function within(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === "/" ? "/" : `${directory}/`);
}
