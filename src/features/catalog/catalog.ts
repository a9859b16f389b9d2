/**
 * The catalogue: backups as their commit records (metadata snapshots) tell, in one session. A backup is complete only when
 * every part that its record names exists exactly once and was not cut short; a record that cannot be read is reported
 * and never dropped in silence. Parts without a record belong to running or failed backups and are not backups.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { AppError, isKind } from "../../base/failure.ts";
import { forEachParallel } from "../../base/for_each_parallel.ts";
import { decodeDirectory } from "../../codec/kopia/directory.ts";
import { decodeSnapshot, type Snapshot } from "../../codec/kopia/snapshot.ts";
import { type BackupMetadata, decodeBackupMetadata } from "../../domain/backup.ts";
import type { Labels, RepositorySession } from "../../ports/repository_session.ts";
import { ObjectReader } from "../objects/mod.ts";
import { METADATA_FILE, TAG_CONTENT, TAG_NAME, TAG_TABLESPACE } from "./tags.ts";
import type { BackupPart, Catalog, CatalogBackup, UnreadableBackup } from "./types.ts";

const PARALLEL = 8;
/** Bounds of documents: a label file has a few hundred bytes, a directory of one file as well. */
const DOCUMENT_BYTES_MAX = 1 << 20;

/** All backups of a cluster. */
export async function listBackups(
  repository: RepositorySession,
  options: Waiting & { readonly cluster: string },
): Promise<Catalog> {
  return await readBackups(repository, { type: "snapshot", hostname: options.cluster }, options);
}

/** One backup, complete or not. Throws `not_found`, or the reason why its record is unreadable. */
export async function getBackup(
  repository: RepositorySession,
  options: Waiting & { readonly cluster: string; readonly name: string },
): Promise<CatalogBackup> {
  const { cluster, name } = options;
  const labels = { type: "snapshot", hostname: cluster, [TAG_NAME]: name };
  const { backups, unreadable } = await readBackups(repository, labels, options);
  const [broken] = unreadable;
  if (broken !== undefined) throw broken.error;
  const [backup] = backups;
  if (backup === undefined) {
    throw new AppError("not_found", `Get backup "${name}" of cluster "${cluster}": no such backup`);
  }
  return backup;
}

interface CommitRecord {
  readonly manifestId: string;
  readonly metadata: BackupMetadata;
}

interface Group {
  readonly name: string;
  readonly manifests: Array<{ readonly id: string; readonly labels: Labels }>;
  readonly records: CommitRecord[];
  readonly parts: BackupPart[];
  readonly unreadable: UnreadableBackup[];
}

async function readBackups(
  repository: RepositorySession,
  labels: Labels,
  options: Waiting,
): Promise<Catalog> {
  const reader = new ObjectReader(repository, { bytesAheadMax: DOCUMENT_BYTES_MAX });
  const groups = new Map<string, Group>();
  for (const { id, labels: found } of await repository.findManifests(labels, options)) {
    const name = found[TAG_NAME];
    if (name === undefined) continue;
    const group = groups.get(name) ??
      { name, manifests: [], records: [], parts: [], unreadable: [] };
    group.manifests.push({ id, labels: found });
    groups.set(name, group);
  }
  const committed = [...groups.values()].filter((group) =>
    group.manifests.some((manifest) => manifest.labels[TAG_CONTENT] === "metadata")
  );
  const work = committed.flatMap((group) =>
    group.manifests.map((manifest) => ({ group, manifest }))
  );
  await forEachParallel(
    work,
    { signal: options.signal, parallel: PARALLEL },
    async (item, signal) => {
      const { group, manifest } = item;
      await readPart(repository, reader, group, manifest, { signal });
    },
  );
  return {
    backups: committed.flatMap(assemble).toSorted((a, b) =>
      a.metadata.startedAtSeconds - b.metadata.startedAtSeconds ||
      (a.metadata.name < b.metadata.name ? -1 : 1)
    ),
    unreadable: committed.flatMap((group) => group.unreadable),
  };
}

async function readPart(
  repository: RepositorySession,
  reader: ObjectReader,
  group: Group,
  manifest: { readonly id: string; readonly labels: Labels },
  options: Waiting,
): Promise<void> {
  const content = manifest.labels[TAG_CONTENT];
  const isRecord = content === "metadata";
  const json = await readIfThere(repository, manifest.id, options);
  if (json === undefined) return; // deleted meanwhile
  try {
    const snapshot = decodeSnapshot(json);
    const { root } = snapshot;
    if (snapshot.incomplete !== "" || (root.summary?.incomplete ?? "") !== "") return;
    if (isRecord) {
      const metadata = await readRecord(reader, snapshot, options);
      if (metadata.name !== group.name) {
        throw new AppError(
          "corruption",
          `Read the metadata of backup "${group.name}": it is that of "${metadata.name}"`,
        );
      }
      group.records.push({ manifestId: manifest.id, metadata });
    } else if (content === "pgdata" || content === "tablespace" || content === "controldata") {
      const tablespaceName = manifest.labels[TAG_TABLESPACE];
      group.parts.push({ manifestId: manifest.id, content, tablespaceName, root });
    }
  } catch (error) {
    // A malformed part is a missing part; only broken data may be shrugged off, never an outage.
    const broken = (["corruption", "protocol", "not_found"] as const).some((kind) =>
      isKind(error, kind)
    );
    if (!broken) throw error;
    if (isRecord) group.unreadable.push({ manifestId: manifest.id, name: group.name, error });
  }
}

async function readIfThere(
  repository: RepositorySession,
  id: string,
  options: Waiting,
): Promise<Uint8Array | undefined> {
  try {
    return (await repository.readManifest(id, options)).json;
  } catch (error) {
    if (isKind(error, "not_found")) return undefined;
    throw error;
  }
}

async function readRecord(
  reader: ObjectReader,
  snapshot: Snapshot,
  options: Waiting,
): Promise<BackupMetadata> {
  const bounded = { signal: options.signal, sizeBytesMax: DOCUMENT_BYTES_MAX };
  let file = snapshot.root;
  if (file.kind === "directory") {
    const directory = decodeDirectory(await reader.readAll(file.objectId, bounded));
    const entry = directory.entries.find((candidate) => candidate.name === METADATA_FILE);
    if (entry === undefined) {
      throw new AppError("corruption", `Read the metadata of a backup: no file "${METADATA_FILE}"`);
    }
    file = entry;
  }
  return decodeBackupMetadata(await reader.readAll(file.objectId, bounded));
}

/** A group as a backup, or nothing when none of its records could be read. */
function assemble(group: Group): CatalogBackup[] {
  const [record] = group.records;
  if (record === undefined) return [];
  const { metadata } = record;
  const problems: string[] = [];
  const check = (what: string, count: number) => {
    if (count === 0) problems.push(`missing ${what}`);
    if (count > 1) problems.push(`${count} times ${what}`);
  };
  const count = (content: BackupPart["content"], tablespaceName?: string) =>
    group.parts.filter((part) => part.content === content && part.tablespaceName === tablespaceName)
      .length;
  check("pgdata", count("pgdata"));
  check("controldata", count("controldata"));
  for (const { name } of metadata.tablespaces) {
    check(`tablespace ${name}`, count("tablespace", name));
  }
  if (group.records.length > 1) check("metadata", group.records.length);
  return [{
    metadata,
    parts: group.parts,
    problems,
    sizeBytes: group.parts.reduce(
      (sum, { root }) => sum + (root.summary?.sizeBytes ?? root.sizeBytes),
      0,
    ),
    files: group.parts.reduce((sum, { root }) => sum + (root.summary?.files ?? 1), 0),
  }];
}
