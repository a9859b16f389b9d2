/**
 * Verification of WAL on its way into the archive. Invariant: under policy `hold`, no byte is acknowledged that is not part
 * of a record whose checksum was found right (or of what no checksum covers, see `codec/walrecord`). A record that is not
 * complete yet is stored, and acknowledged when its end has come.
 *
 * Policy `hold` (the default) acknowledges nothing from the first violation on: what lies before it is stored and acknowledged,
 * then the stream fails with `corruption`. The beginning of the damaged record may have been stored before its end told; it
 * was not acknowledged, and the true bytes replace it (`segment_writer.ts`). Policy `warn` tells of the violation and goes on
 * as if there were no verification; the verdict kept with the segment says so.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";
import type { Logger } from "../../base/log.ts";
import type { VerificationPolicy } from "../../domain/verification.ts";
import {
  formatLsn,
  type Lsn,
  lsnDistance,
  lsnMin,
  segmentName,
  segmentOffset,
} from "../../domain/lsn.ts";
import {
  type SegmentVerdict,
  WalVerifier,
  type WalVerifierOptions,
  type WalViolation,
} from "../../codec/walrecord/mod.ts";

/** A finished segment and what is known of it. */
export interface NamedVerdict {
  readonly name: string;
  readonly verdict: SegmentVerdict;
}

/** What one look at the next bytes of a stream found. */
export interface Inspection {
  /** How many of the bytes may be stored. */
  readonly acceptedBytes: number;
  /** Segments that these bytes completed. */
  readonly verdicts: readonly NamedVerdict[];
  /** Why the rest is not taken: to be thrown when the accepted bytes are safe. */
  readonly refusal: AppError | undefined;
}

/** Looks at the bytes of one stream in order. */
export interface StreamVerification {
  inspect(bytes: Uint8Array): Inspection;
  /** The position up to which a durable stream may be acknowledged. */
  acknowledgeable(durable: Lsn): Lsn;
}

/** Begins the verification of a stream that starts with a segment. */
export type BeginVerification = (
  stream: WalVerifierOptions & { readonly cluster: string },
) => StreamVerification;

/** Verification by record, as the server does it. */
export function verifyRecords(
  options: { readonly policy: VerificationPolicy; readonly log: Logger },
): BeginVerification {
  return (stream) => new RecordVerification(stream, options.policy, options.log);
}

function withName(verdict: SegmentVerdict): NamedVerdict {
  return { name: segmentName(verdict.timeline, verdict.start, verdict.segmentSizeBytes), verdict };
}

class RecordVerification implements StreamVerification {
  #verifier: WalVerifier;
  readonly #stream: WalVerifierOptions & { readonly cluster: string };
  readonly #policy: VerificationPolicy;
  readonly #log: Logger;
  /** The violation that the log has heard of. */
  #told: WalViolation | undefined;

  constructor(
    stream: WalVerifierOptions & { readonly cluster: string },
    policy: VerificationPolicy,
    log: Logger,
  ) {
    this.#verifier = new WalVerifier(stream);
    this.#stream = stream;
    this.#policy = policy;
    this.#log = log;
  }

  inspect(bytes: Uint8Array): Inspection {
    const from = this.#verifier.position;
    const verdicts: NamedVerdict[] = [];
    for (let at = 0; at < bytes.length;) {
      const { segmentSizeBytes } = this.#stream;
      const position = this.#verifier.position;
      // Under `warn` a violation would cover all that follows: the next segment gets a look of its own.
      if (
        this.#verifier.violation !== undefined && segmentOffset(position, segmentSizeBytes) === 0
      ) {
        this.#verifier = new WalVerifier({ ...this.#stream, start: position });
      }
      const piece = bytes.subarray(
        at,
        at + segmentSizeBytes - segmentOffset(position, segmentSizeBytes),
      );
      verdicts.push(...this.#verifier.feed(piece).map(withName));
      at += piece.length;
      const { violation } = this.#verifier;
      if (violation === undefined) continue;
      this.#tell(violation);
      if (this.#policy === "warn") continue;
      const acceptedBytes = Math.max(0, lsnDistance(from, violation.position));
      const passed = verdicts.filter(({ verdict }) => verdict.violation === undefined);
      return { acceptedBytes, verdicts: passed, refusal: this.#refusal(violation) };
    }
    return { acceptedBytes: bytes.length, verdicts, refusal: undefined };
  }

  acknowledgeable(durable: Lsn): Lsn {
    const passed = this.#policy === "warn" && this.#verifier.violation !== undefined;
    return passed ? durable : lsnMin(durable, this.#verifier.verified);
  }

  #tell(violation: WalViolation): void {
    if (this.#told === violation) return;
    this.#told = violation;
    this.#log.error("WAL is damaged", {
      cluster: this.#stream.cluster,
      timeline: this.#stream.timeline,
      policy: this.#policy,
      violation: violation.kind,
      lsn: formatLsn(violation.position),
      seen: violation.seen,
      wanted: violation.wanted,
    });
  }

  #refusal({ kind, position, seen, wanted }: WalViolation): AppError {
    return new AppError(
      "corruption",
      `Verify WAL of cluster "${this.#stream.cluster}" at ${
        formatLsn(position)
      }: ${kind}: saw ${seen}, wanted ${wanted}`,
      {
        hint:
          "WAL up to this position is archived; check PostgreSQL's disk and memory with pg_waldump, then take a new base backup",
      },
    );
  }
}
