/**
 * The WAL archive of a Klio server (tier 1): public face.
 *
 * @module
 */

export { WalArchive, type WalArchiveOptions } from "./archive.ts";
export type { ClusterSummary } from "./summary.ts";
export {
  type BeginVerification,
  type NamedVerdict,
  type StreamVerification,
  verifyRecords,
} from "./verification.ts";
