/**
 * What a Klio server does with WAL that it finds damaged.
 *
 * @module
 */

/**
 * `hold`: the stream is refused at the damaged record, which is never acknowledged; its beginning may be stored already when
 * its end tells, and is then replaced by the true bytes. `warn`: stored and acknowledged, with an error in the log.
 */
export const VERIFICATION_POLICIES = ["hold", "warn"] as const;
/** One of {@link VERIFICATION_POLICIES}. */
export type VerificationPolicy = (typeof VERIFICATION_POLICIES)[number];
