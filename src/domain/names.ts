/**
 * Names that users and peers see. The API group and the plugin name live here and nowhere else, so that serving a later
 * name too stays a small change.
 *
 * @module
 */

/** Plugin name, socket name and metadata name. */
export const PLUGIN_NAME = "klio.enterprisedb.io";

/** Default ports of a Klio server. */
export const PORTS = {
  baseTier1: 51515,
  walTier1: 52000,
  baseTier2: 51516,
  walTier2: 52001,
} as const;

/** Application name of the streamer towards PostgreSQL, for `synchronous_standby_names`. */
export const APPLICATION_NAME = "klio";

/** Default replication slot of the streamer. */
export const DEFAULT_SLOT = "klio";
