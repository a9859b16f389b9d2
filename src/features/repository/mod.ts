/**
 * The repository of base backups, server side: Kopia's format version 3 on any blob store, written and read by this
 * process alone.
 *
 * @module
 */

export { type ManifestAccess, manifestAccess, type SessionOwner } from "./authorization.ts";
export {
  createRepository,
  DEFAULT_LIMITS,
  type NewRepositoryOptions,
  openRepository,
  type Repository,
  type RepositoryDeps,
  type RepositoryLimits,
  type RepositoryStats,
  type SessionRequest,
} from "./repository.ts";
