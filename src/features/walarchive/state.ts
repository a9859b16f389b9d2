/**
 * What the archive knows of a cluster besides its files: `cluster.json`, replaced atomically and durably. It is written
 * before the first WAL of a cluster, so that files without it mean damage and never a new cluster.
 *
 * @module
 */

import { fromUtf8, utf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { checkSegmentSize, parseWalName } from "../../domain/lsn.ts";
import type { WalGap } from "../../ports/wal_server.ts";
import {
  clusterDirectory,
  latestSegment,
  type Storage,
  stored,
  storedIfPresent,
} from "./storage.ts";

/** See the module comment. */
export interface ClusterState {
  readonly systemId: string;
  readonly segmentSizeBytes: number | undefined;
  readonly gaps: readonly WalGap[];
}

/** True for an unsigned 64-bit decimal number. */
export function isSystemId(text: string): boolean {
  return /^(0|[1-9][0-9]{0,19})$/.test(text) && BigInt(text) < 1n << 64n;
}

function statePath(root: string, cluster: string): string {
  return `${clusterDirectory(root, cluster)}/cluster.json`;
}

/** The state of a cluster; undefined when the archive never heard of it. Throws `corruption`. */
export async function loadState(
  storage: Storage,
  cluster: string,
): Promise<ClusterState | undefined> {
  const path = statePath(storage.root, cluster);
  const bytes = await storedIfPresent("Read cluster state", storage.files.readFile(path));
  if (bytes === undefined) {
    const latest = await latestSegment(storage, clusterDirectory(storage.root, cluster));
    if (latest === undefined) return undefined;
    throw new AppError("corruption", `Read cluster state "${path}": it is gone, but WAL is there`, {
      hint: "restore the file from a backup of the archive, or move the cluster's directory away",
    });
  }
  try {
    return decodeState(JSON.parse(fromUtf8(bytes)));
  } catch (error) {
    throw new AppError("corruption", `Read cluster state "${path}": it is malformed`, {
      cause: error,
    });
  }
}

/** Stores the state; durable when it resolves. */
export async function saveState(
  storage: Storage,
  cluster: string,
  state: ClusterState,
): Promise<void> {
  const { files, root } = storage;
  await stored("Create cluster directory", files.makeDirectory(clusterDirectory(root, cluster)));
  const text = `${JSON.stringify({ version: 1, ...state }, null, 2)}\n`;
  await stored(
    "Write cluster state",
    files.writeFileAtomic(statePath(root, cluster), utf8(text), 0o600),
  );
}

/** Checks every field: the file may have been edited by hand. Throws a plain error that says which is wrong. */
function decodeState(value: unknown): ClusterState {
  const { version, systemId, segmentSizeBytes, gaps } = fieldsOf(value, "the document");
  if (version !== 1) throw new Error(`version is ${version}, wanted 1`);
  if (typeof systemId !== "string" || !isSystemId(systemId)) {
    throw new Error("systemId is not a decimal number in quotes");
  }
  if (segmentSizeBytes !== undefined) {
    if (typeof segmentSizeBytes !== "number") throw new Error("segmentSizeBytes is not a number");
    checkSegmentSize(segmentSizeBytes);
  }
  if (!Array.isArray(gaps)) throw new Error("gaps is not a list");
  return { systemId, segmentSizeBytes, gaps: gaps.map(decodeGap) };
}

function decodeGap(value: unknown): WalGap {
  const { recordedAtMs, start, end } = fieldsOf(value, "a gap");
  if (typeof recordedAtMs !== "number" || typeof start !== "string" || typeof end !== "string") {
    throw new Error("a gap lacks recordedAtMs, start or end");
  }
  parseWalName(start);
  parseWalName(end);
  return { recordedAtMs, start, end };
}

function fieldsOf(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null) throw new Error(`${what} is not an object`);
  return { ...value };
}
