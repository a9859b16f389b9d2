/**
 * Who may do what with a manifest, decided from its labels alone (reference/kopia.md 1.5, the rules in force when a
 * repository holds no ACL). The host part of an identity is the cluster: nothing that another host owns is ever visible,
 * and that is what keeps clusters apart. Contents have no owner: knowing an id (a keyed hash) is the right to read it.
 *
 * Stricter than stock Kopia in one point: only snapshots and policies can be owned, so that a client cannot plant manifests that
 * the server itself acts upon (users, ACLs, maintenance). Wider in one point: a user reads what another user of its own
 * host wrote, because a restore may run under another name than the backup.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";
import type { Labels } from "../../ports/repository_session.ts";

/** Who a session acts for. */
export interface SessionOwner {
  readonly user: string;
  /** The cluster. */
  readonly host: string;
}

/** In rising order; each level includes those before. */
export type ManifestAccess = "none" | "read" | "full";

const OWNED_TYPES: readonly (string | undefined)[] = ["snapshot", "policy"];

/** What `owner` may do with a manifest of these labels. */
export function manifestAccess(owner: SessionOwner, labels: Labels): ManifestAccess {
  const { type, policyType, hostname, username } = labels;
  if (!OWNED_TYPES.includes(type)) return "none";
  if (type === "policy" && policyType === "global") return "read";
  if (hostname !== owner.host) return "none";
  return username === owner.user ? "full" : "read";
}

/** Throws `permission` unless `owner` may read a manifest of these labels. */
export function requireRead(owner: SessionOwner, labels: Labels): void {
  if (manifestAccess(owner, labels) === "none") throw refusal("Read", owner, labels);
}

/** Throws `permission` unless `owner` may create or remove a manifest of these labels. */
export function requireFull(owner: SessionOwner, labels: Labels): void {
  if (manifestAccess(owner, labels) !== "full") throw refusal("Change", owner, labels);
}

/** Throws `permission` for contents that only the repository itself writes: manifests are `m` contents. */
export function requireContentPrefix(owner: SessionOwner, prefix: string): void {
  if (prefix === "m") {
    throw new AppError(
      "permission",
      `Write content with prefix "m" as "${owner.user}@${owner.host}": manifests are written by the repository only`,
    );
  }
}

function refusal(action: string, owner: SessionOwner, labels: Labels): AppError {
  const subject = ["type", "policyType", "username", "hostname", "path"]
    .filter((key) => labels[key] !== undefined).map((key) => `${key}=${labels[key]}`).join(" ");
  return new AppError(
    "permission",
    `${action} manifest "${subject}" as "${owner.user}@${owner.host}": it does not belong to this identity`,
  );
}
