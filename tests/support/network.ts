/**
 * A server on a free loopback port with certificates of its own, and addresses for its clients.
 *
 * @module
 */

import { GrpcServer } from "../../src/adapters/grpc/server.ts";
import type { ServerAddress } from "../../src/adapters/grpc/channel.ts";
import { type Keepalive, WAL_MESSAGE_BYTES_MAX } from "../../src/adapters/grpc/options.ts";
import {
  createAuthority,
  issueClientCertificate,
  issueServerCertificate,
  type KeyedCertificate,
  LOCAL_NAMES,
  type Validity,
} from "../../src/adapters/x509/certificates.ts";
import { SYSTEM_CLOCK } from "../../src/adapters/process/clock.ts";
import { SILENT } from "../../src/base/log.ts";
import type { RpcService } from "../../src/ports/rpc.ts";
import { statusOf } from "../../src/rpc/status.ts";

const HOUR_MS = 3_600_000;

/** Valid for two hours around now; TLS layers read the real clock. */
export function validNow(): Validity {
  const nowMs = SYSTEM_CLOCK.nowMs();
  return { notBeforeMs: nowMs - HOUR_MS, notAfterMs: nowMs + HOUR_MS };
}

/** Expired an hour ago. */
export function expired(): Validity {
  const nowMs = SYSTEM_CLOCK.nowMs();
  return { notBeforeMs: nowMs - 2 * HOUR_MS, notAfterMs: nowMs - HOUR_MS };
}

/** Made once: keys cost milliseconds. */
export const AUTHORITY = createAuthority({ commonName: "test CA", ...validNow() });
/** Signed by {@link AUTHORITY} for {@link LOCAL_NAMES}. */
export const SERVER = issueServerCertificate(AUTHORITY, { names: LOCAL_NAMES, ...validNow() });
/** CN `klio@cluster-a`. */
export const CLIENT = clientCertificate("klio@cluster-a");

/** A client certificate that the test servers accept. */
export function clientCertificate(commonName: string): KeyedCertificate {
  return issueClientCertificate(AUTHORITY, { commonName, ...validNow() });
}

/** What differs from the usual server. */
export interface TestServerOptions {
  readonly certificate?: KeyedCertificate;
  readonly messageBytesMax?: number;
  readonly keepalive?: Keepalive;
}

/** A running server. */
export async function startServer(
  services: readonly RpcService[],
  options: TestServerOptions = {},
): Promise<GrpcServer> {
  const certificate = options.certificate ?? SERVER;
  return await GrpcServer.listen({
    host: "127.0.0.1",
    port: 0,
    tls: {
      certificatePem: certificate.certificatePem,
      keyPem: certificate.keyPem,
      clientAuthorityPem: AUTHORITY.certificatePem,
    },
    services,
    messageBytesMax: options.messageBytesMax ?? WAL_MESSAGE_BYTES_MAX,
    statusOf,
    log: SILENT,
    ...(options.keepalive === undefined ? {} : { keepalive: options.keepalive }),
  });
}

/** What differs from the usual client. */
export interface TestClientOptions {
  readonly host?: string;
  readonly certificate?: KeyedCertificate;
  readonly trustedPem?: string;
}

/** Address of a server for a client. */
export function addressOf(port: number, options: TestClientOptions = {}): ServerAddress {
  const certificate = options.certificate ?? CLIENT;
  return {
    host: options.host ?? "localhost",
    port,
    tls: {
      trustedPem: options.trustedPem ?? AUTHORITY.certificatePem,
      certificatePem: certificate.certificatePem,
      keyPem: certificate.keyPem,
    },
  };
}

/**
 * Call after a connection was refused: the gRPC library starts a back-off timer of a millisecond before it connects and
 * does not stop it, so the sanitizer would see it. Not a wait for something to happen.
 */
export async function endBackoffTimer(): Promise<void> {
  await SYSTEM_CLOCK.sleep(3, { signal: new AbortController().signal });
}
