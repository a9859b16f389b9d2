/**
 * A verification that passes everything, for tests that store bytes which are no WAL: what they prove does not depend on
 * what the bytes mean.
 *
 * @module
 */

import type { BeginVerification } from "../../src/features/walarchive/mod.ts";

/** See the module comment. */
export const TRUSTING: BeginVerification = () => ({
  inspect: (bytes) => ({ acceptedBytes: bytes.length, verdicts: [], refusal: undefined }),
  acknowledgeable: (durable) => durable,
});
