/**
 * What a Klio server does with WAL that it finds damaged.
 *
 * @module
 */

/** `hold`: neither stored nor acknowledged from the damage on. `warn`: stored and acknowledged, with an error in the log. */
export const VERIFICATION_POLICIES = ["hold", "warn"] as const;
/** One of {@link VERIFICATION_POLICIES}. */
export type VerificationPolicy = (typeof VERIFICATION_POLICIES)[number];
