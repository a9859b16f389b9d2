/**
 * Verification of physical WAL, record by record: public face.
 *
 * @module
 */

export {
  decodeVerdict,
  encodeVerdict,
  type SegmentVerdict,
  WAL_VIOLATION_KINDS,
  type WalViolation,
  type WalViolationKind,
} from "./verdict.ts";
export { WalVerifier, type WalVerifierOptions } from "./verifier.ts";
