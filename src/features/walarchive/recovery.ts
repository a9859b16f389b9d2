/**
 * Cleaning up at start, before any client is served: files that a crashed writer left aside were never acknowledged, and
 * a partial beside its complete segment is superseded. Nothing else is removed; partials are verified when they are used.
 *
 * @module
 */

import { isName } from "../../domain/identity.ts";
import {
  isAside,
  listSegmentDirectories,
  removeLeftover,
  type Storage,
  stored,
  storedIfPresent,
} from "./storage.ts";

/** Names of the clusters that have a directory. */
export async function listClusters(storage: Storage): Promise<readonly string[]> {
  const names = await stored("List WAL archive", storage.files.list(storage.root));
  const clusters: string[] = [];
  for (const name of names) {
    if (!isName(name)) continue;
    const info = await stored("List WAL archive", storage.files.stat(`${storage.root}/${name}`));
    if (info.kind === "directory") clusters.push(name);
  }
  return clusters.sort();
}

/** See the module comment. */
export async function recoverArchive(storage: Storage): Promise<void> {
  for (const name of await stored("List WAL archive", storage.files.list(storage.root))) {
    // Not every aside: a cluster may have such a name.
    const ours = name.startsWith("wal.key") && isAside(name);
    if (ours) await removeLeftover(storage, `${storage.root}/${name}`);
  }
  for (const cluster of await listClusters(storage)) {
    const clusterPath = `${storage.root}/${cluster}`;
    await removeAsides(storage, clusterPath);
    for (const directory of await listSegmentDirectories(storage, clusterPath)) {
      await recoverDirectory(storage, `${clusterPath}/${directory}`);
    }
  }
}

async function removeAsides(storage: Storage, directory: string): Promise<readonly string[]> {
  const names = await stored("List WAL archive", storage.files.list(directory));
  for (const name of names) {
    if (isAside(name)) await removeLeftover(storage, `${directory}/${name}`);
  }
  return names;
}

async function recoverDirectory(storage: Storage, directory: string): Promise<void> {
  const names = new Set(await removeAsides(storage, directory));
  const superseded = [...names].filter((name) =>
    name.endsWith(".partial") && names.has(name.slice(0, -".partial".length))
  );
  if (superseded.length === 0) return;
  // The complete file's name must be durable before its partial goes.
  await storedIfPresent("Sync WAL directory", storage.files.syncDirectory(directory));
  for (const name of superseded) await removeLeftover(storage, `${directory}/${name}`);
}
