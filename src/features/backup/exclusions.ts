/**
 * What a base backup leaves out: what pg_basebackup leaves out (PostgreSQL 15-18, `src/backend/backup/basebackup.c`) and the
 * list of upstream (reference/klio.md 5.3). Directories whose contents do not belong to a backup stay, empty: PostgreSQL does
 * not create them. `global/pg_control` is stored on its own, last.
 *
 * @module
 */

import {
  CONTROL_FILE,
  EMPTY_DIRECTORIES,
  LOG_DIRECTORIES,
  TRANSIENT_FILES,
} from "../../domain/data_directory.ts";
import type { FileInfo } from "../../ports/files.ts";
import type { Select, Verdict } from "../objects/mod.ts";

/** A relation file: number, fork, segment. */
const RELATION = /^(\d+)(_(?:fsm|vm|init))?(?:\.\d+)?$/;
const TEMPORARY_RELATION = /^t\d+_\d+(?:_(?:fsm|vm|init))?(?:\.\d+)?$/;

/** The selection for a data directory. `tablespaces` are absolute paths that are stored on their own. */
export function selectDataDirectory(
  dataDirectory: string,
  tablespaces: ReadonlySet<string>,
): Select {
  return (path, info, siblings) => {
    if (path === CONTROL_FILE || TRANSIENT_FILES.has(path)) return "skip";
    if (EMPTY_DIRECTORIES.has(path) || LOG_DIRECTORIES.has(path)) {
      return isDirectoryLike(info) ? "empty" : "skip";
    }
    if (tablespaces.has(`${dataDirectory}/${path}`)) return "skip";
    return selectAnywhere(path, info, siblings, /^base\/\d+$/);
  };
}

/** The selection for a tablespace: only the directory of this major version, several servers may share the location. */
export function selectTablespace(majorVersion: number): Select {
  return (path, info, siblings) => {
    const [top] = path.split("/");
    if (!top?.startsWith(`PG_${majorVersion}_`)) return "skip";
    return selectAnywhere(path, info, siblings, /^PG_[^/]+\/\d+$/);
  };
}

function selectAnywhere(
  path: string,
  info: FileInfo,
  siblings: ReadonlySet<string>,
  databaseDirectory: RegExp,
): Verdict {
  const slash = path.lastIndexOf("/");
  const name = path.slice(slash + 1);
  if (name.startsWith("pgsql_tmp") || name.startsWith("pg_internal.init")) return "skip";
  if (info.kind !== "file" || !databaseDirectory.test(path.slice(0, Math.max(slash, 0)))) {
    return "keep";
  }
  if (TEMPORARY_RELATION.test(name)) return "skip";
  const [, relation, fork] = RELATION.exec(name) ?? [];
  // Recovery makes an unlogged relation anew from its init fork.
  const unlogged = relation !== undefined && siblings.has(`${relation}_init`);
  return unlogged && fork !== "_init" ? "skip" : "keep";
}

function isDirectoryLike(info: FileInfo): boolean {
  return info.kind === "directory" || info.kind === "symlink";
}
