/**
 * Remote calls without a library: `rpc/` writes handlers against this, `adapters/grpc` hosts them. Every method has the
 * shape of a bidirectional stream of encoded messages; unary calls are the case of one message each way, which on the
 * wire of gRPC is the same thing.
 *
 * @module
 */

import type { Bytes } from "../base/bytes.ts";
import type { Identity } from "../domain/identity.ts";

/** One call being served. */
export interface RpcCall {
  /** From the verified client certificate. */
  readonly identity: Identity;
  /** Aborts when the client cancels or is gone, or when the server stops. */
  readonly signal: AbortSignal;
  /** Metadata values that the client sent under this lower-case name. */
  metadata(name: string): readonly string[];
  /** The next request, owned; undefined after the client's last one. Throws the signal's reason. */
  receive(): Promise<Bytes | undefined>;
  /** Sends an encoded response (owned by the transport from here on). Waits while the client is slower than we are. */
  send(message: Bytes): Promise<void>;
}

/** Serves one call: its end is the end of the call, what it throws becomes the status. */
export type RpcHandler = (call: RpcCall) => Promise<void>;

/** A service: full name and its methods. */
export interface RpcService {
  /** For example `klio.wal.v1.WAL`. */
  readonly name: string;
  readonly methods: Readonly<Record<string, RpcHandler>>;
}

/** Final status of a failed call. */
export interface RpcStatus {
  /** Numeric gRPC status code. */
  readonly code: number;
  readonly message: string;
  /** Values are printable ASCII. */
  readonly trailers: Readonly<Record<string, string>>;
}

/** Trailers in which a klio server tells a klio client more than the status code says; values are percent-encoded. */
export const RPC_TRAILERS = { kind: "klio-kind", hint: "klio-hint" } as const;
