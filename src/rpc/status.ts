/**
 * The one place where a failure becomes the status of a call.
 *
 * @module
 */

import { describeError, failureKind, FAILURES, findAppError } from "../base/failure.ts";
import { RPC_TRAILERS, type RpcStatus } from "../ports/rpc.ts";

/** Headers of HTTP/2 have a limit: 8 KiB for all of them with some peers. */
const MESSAGE_LENGTH_MAX = 2000;
const HINT_LENGTH_MAX = 1000;

/** Status for what a handler threw. Of anything that is no AppError the client learns only that it was a bug. */
export function statusOf(error: unknown): RpcStatus {
  const kind = failureKind(error);
  const known = findAppError(error);
  const message = known === undefined ? "Serve call: internal error" : describeError(known);
  return {
    code: FAILURES[kind].grpc,
    message: clip(message, MESSAGE_LENGTH_MAX),
    trailers: {
      [RPC_TRAILERS.kind]: kind,
      ...(known?.hint === undefined
        ? {}
        : { [RPC_TRAILERS.hint]: encodeURIComponent(clip(known.hint, HINT_LENGTH_MAX)) }),
    },
  };
}

function clip(text: string, lengthMax: number): string {
  // Well formed, because both headers are percent-encoded, which throws on half a surrogate pair.
  return text.slice(0, lengthMax).toWellFormed();
}
