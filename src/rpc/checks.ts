/**
 * Checks of what clients name in their requests, shared by all services: strict ASCII names that are safe as path
 * components, upper-case WAL names, and above all that the cluster is the client's own.
 *
 * @module
 */

import { AppError } from "../base/failure.ts";
import { authorize, checkClusterName, type Identity } from "../domain/identity.ts";
import { parseWalName } from "../domain/lsn.ts";

const SYSTEM_ID_MAX = 2n ** 64n - 1n;

/** The cluster, which must be well formed (`usage`) and the one of the client's certificate (`permission`). */
export function checkCluster(identity: Identity, cluster: string): string {
  checkClusterName(cluster);
  authorize(identity, cluster);
  return cluster;
}

/** PostgreSQL's system identifier, decimal. Throws `usage`. */
export function checkSystemId(systemId: string): string {
  if (!/^[1-9][0-9]{0,19}$/.test(systemId) || BigInt(systemId) > SYSTEM_ID_MAX) {
    throw new AppError(
      "usage",
      `Use system identifier "${systemId}": wanted a decimal number of 64 bits`,
    );
  }
  return systemId;
}

/** A segment name without `.partial`. Throws `usage`. */
export function checkSegmentName(name: string): string {
  const parsed = parseWalName(name);
  if (parsed.kind !== "segment" || parsed.partial) {
    throw new AppError("usage", `Use WAL file "${name}": wanted the name of a WAL segment`);
  }
  return name;
}
