/**
 * The one translation of gRPC failures that a client meets into {@link AppError}. A klio server says in its trailers which
 * kind of failure it was and what to do; of any other server only the status code is known.
 *
 * @module
 */

import type { Metadata } from "@grpc/grpc-js";
import { AppError, type FailureKind, FAILURES } from "../../base/failure.ts";
import { RPC_TRAILERS } from "../../ports/rpc.ts";

/** gRPC status codes to kinds. */
const KIND_OF_CODE: ReadonlyMap<number, FailureKind> = new Map([
  [1, "cancelled"],
  [2, "repository"],
  [3, "usage"],
  [4, "timeout"],
  [5, "not_found"],
  [6, "conflict"],
  [7, "permission"],
  [8, "exhausted"],
  [9, "config"],
  [10, "conflict"],
  [11, "end_of_wal"],
  [12, "protocol"],
  [13, "protocol"],
  [14, "repository"],
  [15, "corruption"],
  [16, "permission"],
]);

/** UNIMPLEMENTED: the server does not know the method. */
export const UNIMPLEMENTED = 12;
/** UNAVAILABLE: not connected, or not any more. */
export const UNAVAILABLE = 14;

/** What the library reports of a call that failed. */
export interface CallFailure {
  readonly code: number;
  readonly details: string;
  readonly metadata: Metadata;
}

/** True for a name of the failure table. */
export function isFailureKind(text: string): text is FailureKind {
  return Object.hasOwn(FAILURES, text);
}

/** Where a call went and what is known besides its status. */
export interface CallContext {
  readonly address: string;
  readonly method: string;
  /** Why the TLS handshake failed, when it did. */
  readonly handshakeFailure: AppError | undefined;
}

/** The failure of a call. The gRPC code is in `data.grpc`. */
export function translateCallFailure(failure: CallFailure, context: CallContext): AppError {
  const data = { address: context.address, method: context.method, grpc: failure.code };
  const kind = trailer(failure.metadata, RPC_TRAILERS.kind);
  if (kind !== undefined && isFailureKind(kind)) {
    const hint = trailer(failure.metadata, RPC_TRAILERS.hint);
    return new AppError(kind, failure.details, { ...(hint === undefined ? {} : { hint }), data });
  }
  if (failure.code === UNAVAILABLE && context.handshakeFailure !== undefined) {
    const cause = context.handshakeFailure;
    return new AppError(cause.kind, `Connect to klio server "${context.address}"`, {
      cause,
      ...(cause.hint === undefined ? {} : { hint: cause.hint }),
      data,
    });
  }
  if (failure.code === UNAVAILABLE) {
    return new AppError(
      "repository",
      `Reach klio server "${context.address}": ${failure.details}`,
      { hint: "check that the server runs and that address and port are right", data },
    );
  }
  const message = failure.code === UNIMPLEMENTED
    ? `Call ${context.method} of klio server "${context.address}": the server does not know this method`
    : `Call ${context.method} of klio server "${context.address}": ${failure.details}`;
  return new AppError(KIND_OF_CODE.get(failure.code) ?? "protocol", message, { data });
}

function trailer(metadata: Metadata, name: string): string | undefined {
  const [value] = metadata.get(name);
  if (typeof value !== "string") return undefined;
  try {
    return decodeURIComponent(value);
  } catch {
    return undefined; // another server's idea of this header
  }
}
