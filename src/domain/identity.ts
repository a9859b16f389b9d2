/**
 * Who a client is: the common name `user@cluster` of its certificate (design decision 14). The cluster part must equal
 * the cluster named in EVERY call. Cluster names become directory names, so they are ASCII and never `.` or `..`.
 *
 * @module
 */

import { AppError } from "../base/failure.ts";

/** A parsed common name. */
export interface Identity {
  readonly user: string;
  readonly cluster: string;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$/;

/** True for a cluster or user name that is safe as a path component. */
export function isName(text: string): boolean {
  return NAME.test(text);
}

/** Throws `usage` unless `cluster` can be a cluster name. */
export function checkClusterName(cluster: string): void {
  if (!isName(cluster)) {
    throw new AppError(
      "usage",
      `Use cluster name "${cluster}": wanted ASCII letters, digits, ".", "_" or "-", starting with a letter or digit`,
    );
  }
}

/** Parses `user@cluster`. Throws `permission`. */
export function parseIdentity(commonName: string): Identity {
  const parts = commonName.split("@");
  const [user, cluster] = parts;
  if (
    parts.length !== 2 || user === undefined || cluster === undefined || !isName(user) ||
    !isName(cluster)
  ) {
    throw new AppError(
      "permission",
      `Identify client certificate "CN=${commonName}": wanted a common name of the form user@cluster`,
      {
        hint: "issue the client certificate with commonName <user>@<cluster name>",
      },
    );
  }
  return { user, cluster };
}

/** Throws `permission` unless the identity may act for `cluster`. */
export function authorize(identity: Identity, cluster: string): void {
  if (identity.cluster !== cluster) {
    throw new AppError(
      "permission",
      `Access cluster "${cluster}" as "${identity.user}@${identity.cluster}": the certificate is for cluster "${identity.cluster}"`,
      { hint: "use a client certificate whose CN ends in the name of this cluster" },
    );
  }
}
