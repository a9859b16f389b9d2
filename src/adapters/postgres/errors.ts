/**
 * Translation of what PostgreSQL and the network answer into klio's failures, by SQLSTATE and errno codes only: texts are
 * localised. Every way in which a first installation goes wrong gets a hint.
 *
 * @module
 */

import { AppError, type FailureKind } from "../../base/failure.ts";
import { formatLsn, type Lsn } from "../../domain/lsn.ts";
import { type ConnectionSettings, isSocketDirectory } from "./conninfo.ts";

/** Oldest PostgreSQL major version that klio works with (READ_REPLICATION_SLOT came with 15). */
export const MAJOR_VERSION_MIN = 15;

/** An ErrorResponse of PostgreSQL. */
export class ServerError extends Error {
  override readonly name = "ServerError";
  /** SQLSTATE, five characters. */
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** `host:port` or the socket path, for messages. */
export function placeOf(settings: Pick<ConnectionSettings, "host" | "port">): string {
  return isSocketDirectory(settings.host)
    ? `${settings.host}/.s.PGSQL.${settings.port}`
    : `${settings.host}:${settings.port}`;
}

interface Advice {
  readonly kind: FailureKind;
  readonly hint?: string;
}

const UNREACHABLE: Advice = {
  kind: "source",
  hint: "check that PostgreSQL runs and that host and port are right",
};
const UNTRUSTED: Advice = {
  kind: "source",
  hint: "the server's certificate is not trusted: check sslrootcert and the host name",
};

const BY_CODE: Readonly<Record<string, Advice>> = {
  ECONNREFUSED: UNREACHABLE,
  ENOENT: UNREACHABLE,
  ENOTFOUND: UNREACHABLE,
  EAI_AGAIN: UNREACHABLE,
  EHOSTUNREACH: UNREACHABLE,
  ENETUNREACH: UNREACHABLE,
  ETIMEDOUT: UNREACHABLE,
  EACCES: { kind: "source", hint: "this user may not open PostgreSQL's socket" },
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
  SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED,
  DEPTH_ZERO_SELF_SIGNED_CERT: UNTRUSTED,
  ERR_TLS_CERT_ALTNAME_INVALID: UNTRUSTED,
  CERT_HAS_EXPIRED: UNTRUSTED,
  // invalid_password
  "28P01": { kind: "permission", hint: "check user and password" },
  "3D000": { kind: "config", hint: "this database does not exist: check dbname" },
  // too_many_connections: also what a full max_wal_senders answers
  "53300": {
    kind: "source",
    hint: "raise max_wal_senders (and max_connections) or end other replication connections",
  },
  // cannot_connect_now: starting up, shutting down, in recovery
  "57P03": { kind: "source", hint: "PostgreSQL is starting up or shutting down" },
  // insufficient_privilege
  "42501": {
    kind: "permission",
    hint: "grant the rights: ALTER ROLE <user> REPLICATION for streaming, membership in " +
      "pg_checkpoint and EXECUTE on pg_backup_start and pg_backup_stop for backups",
  },
  // undefined_object: START_REPLICATION with a slot that is not there
  "42704": { kind: "source", hint: "the replication slot vanished: it is created anew on retry" },
  // object_in_use
  "55006": {
    kind: "source",
    hint: "another process streams from this replication slot: stop it, or use another slot",
  },
  // object_not_in_prerequisite_state: invalidated slot, wal_level too low
  "55000": {
    kind: "source",
    hint: "check wal_level and whether the slot was invalidated (pg_replication_slots.wal_status)",
  },
  // configuration_limit_exceeded: max_replication_slots
  "53400": { kind: "source", hint: "raise max_replication_slots or drop unused slots" },
};

/**
 * A foreign failure as an {@link AppError}; one that already is passes untouched. Unknown codes are `source`: PostgreSQL
 * refused, for a reason its own text tells.
 */
export function translate(
  error: unknown,
  action: string,
  settings: Pick<ConnectionSettings, "host" | "port" | "user">,
): unknown {
  if (error instanceof AppError) return error;
  if (error instanceof DOMException) return error; // an abort reason
  const code = codeOf(error);
  const advice = code === "28000" ? refusedByHba(settings) : BY_CODE[code] ?? { kind: "source" };
  const text = error instanceof Error ? error.message : String(error);
  return new AppError(advice.kind, `${action} at "${placeOf(settings)}": ${text || code}`, {
    cause: error,
    ...(advice.hint === undefined ? {} : { hint: advice.hint }),
    data: { code },
  });
}

/**
 * What START_REPLICATION says when PostgreSQL no longer has the WAL (undefined_file). `not_found`, because asking again
 * does not bring it back.
 */
export function walRemoved(start: Lsn, slot: string, cause: unknown): AppError {
  return new AppError(
    "not_found",
    `Start replication at ${formatLsn(start)} with slot "${slot}": PostgreSQL has removed this WAL`,
    {
      cause,
      hint: "take a new base backup now: recovery cannot cross the missing WAL",
      data: { code: "58P01" },
    },
  );
}

/** SQLSTATE or errno name of anything thrown; empty when it has none. */
export function codeOf(error: unknown): string {
  if (typeof error !== "object" || error === null || !("code" in error)) return "";
  return typeof error.code === "string" ? error.code : "";
}

/** invalid_authorization_specification: no pg_hba line, or a role without LOGIN or REPLICATION. */
function refusedByHba(settings: Pick<ConnectionSettings, "host" | "port" | "user">): Advice {
  const line = isSocketDirectory(settings.host)
    ? `local replication ${settings.user} peer`
    : `host replication ${settings.user} <address of klio>/32 scram-sha-256`;
  return {
    kind: "permission",
    hint:
      `add the line "${line}" to pg_hba.conf and reload, and check that the role has REPLICATION`,
  };
}
