/**
 * TLS 1.3 of a client: shows its certificate, judges the server's (`trust.ts`) and keeps why a handshake failed, since the
 * gRPC library reduces every failure to text.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { isIP, type Socket } from "node:net";
import { connect, createSecureContext, type SecureContext, type TLSSocket } from "node:tls";
import { CallCredentials, ChannelCredentials } from "@grpc/grpc-js";
import { AppError } from "../../base/failure.ts";
import type { Clock } from "../../base/clock.ts";
import { checkKeyPair } from "./key_pair.ts";
import { judgeServer, parseCertificates, parseTrust, type Trust } from "./trust.ts";

/** TLS material of a client, all PEM. */
export interface ClientTls {
  /** Certificates that decide which server is trusted; see `trust.ts`. */
  readonly trustedPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

type SecureConnector = ReturnType<ChannelCredentials["_createSecureConnector"]>;

/** Alerts by which a server refuses the client's certificate, as Deno and Node spell them. */
const CERTIFICATE_ALERT =
  /ALERT_(?:BAD_CERTIFICATE|UNSUPPORTED_CERT|CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)/;

/** See the module comment. */
export class ClientCredentials extends ChannelCredentials {
  readonly #host: string;
  readonly #trust: Trust;
  readonly #context: SecureContext;
  readonly #clock: Clock;
  readonly #sockets = new Set<Socket>();
  #failure: AppError | undefined;

  /** Throws `config` for unusable PEM, `permission` for a client certificate that is not valid now. */
  constructor(options: { readonly host: string; readonly tls: ClientTls; readonly clock: Clock }) {
    super();
    this.#host = options.host;
    this.#clock = options.clock;
    this.#trust = parseTrust(options.tls.trustedPem);
    checkDates(options.tls.certificatePem, options.clock.nowMs());
    this.#context = secureContext(options.tls, this.#trust);
  }

  /** Why the latest handshake failed; undefined when it did not. */
  get failure(): AppError | undefined {
    return this.#failure;
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(): SecureConnector {
    const callCredentials = CallCredentials.createEmpty();
    return {
      connect: async (socket) => ({ socket: await this.#handshake(socket), secure: true }),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => callCredentials,
      destroy() {},
    };
  }

  /** Closes the connections at once. The library would wait for calls that were cancelled. */
  destroyConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #handshake(socket: Socket): Promise<TLSSocket> {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    return new Promise((resolve, reject) => {
      this.#failure = undefined;
      let bytesAtHandshake: number | undefined;
      // In TLS 1.3 our handshake is over before the server has looked at our certificate. Servers in Go or over OpenSSL
      // then send an alert; Deno's just closes. One that accepts us speaks at once (session tickets, HTTP/2 settings).
      const isSilent = () => socket.bytesRead === bytesAtHandshake;
      const tls = connect({
        socket,
        secureContext: this.#context,
        ALPNProtocols: ["h2"],
        host: this.#host,
        // An address is no server name (RFC 6066); Deno throws on one.
        ...(isIP(this.#host) === 0 ? { servername: this.#host } : {}),
        rejectUnauthorized: false, // the judgement below replaces it, see trust.ts
      }, () => {
        const refused = this.#judge(tls);
        if (refused === undefined) {
          bytesAtHandshake = socket.bytesRead;
          return resolve(tls);
        }
        this.#failure = refused;
        tls.destroy();
        reject(refused);
      });
      tls.once("close", () => {
        if (isSilent()) this.#failure ??= closedSilently(this.#host);
      });
      // Stays for the life of the connection: alerts come after the handshake too.
      tls.on("error", (cause: NodeJS.ErrnoException) => {
        this.#failure = CERTIFICATE_ALERT.test(cause.code ?? "")
          ? refusedByServer(this.#host, cause)
          : isSilent()
          ? closedSilently(this.#host, cause) // our first write met the closed connection
          : new AppError("repository", `Talk TLS to klio server "${this.#host}"`, { cause });
        reject(this.#failure);
      });
    });
  }

  #judge(tls: TLSSocket): AppError | undefined {
    const raw = tls.getPeerCertificate(true).raw ?? Buffer.alloc(0);
    return judgeServer(this.#trust, {
      raw,
      authorized: tls.authorized,
      authorizationError: String(tls.authorizationError ?? "not verified"),
      host: this.#host,
      nowMs: this.#clock.nowMs(),
    });
  }
}

function secureContext(tls: ClientTls, trust: Trust): SecureContext {
  checkKeyPair(tls, "client");
  return createSecureContext({
    minVersion: "TLSv1.3",
    ca: trust.certificates.map((certificate) => certificate.toString()),
    cert: tls.certificatePem,
    key: tls.keyPem,
  });
}

function checkDates(certificatePem: string, nowMs: number): void {
  const [leaf] = parseCertificates(certificatePem, "Read client certificate");
  if (leaf === undefined) return;
  const isExpired = nowMs > Date.parse(leaf.validTo);
  if (!isExpired && nowMs >= Date.parse(leaf.validFrom)) return;
  const why = isExpired ? `it expired at ${leaf.validTo}` : `not valid before ${leaf.validFrom}`;
  throw new AppError("permission", `Use client certificate "${leaf.subject}": ${why}`, {
    hint: "renew the client certificate",
  });
}

const REFUSED_HINT =
  "the certificate must be signed by a CA that the server trusts, and not be expired";

function refusedByServer(host: string, cause: unknown): AppError {
  return new AppError(
    "permission",
    `Authenticate to klio server "${host}": it refused our client certificate`,
    { cause, hint: REFUSED_HINT },
  );
}

/** What a server that crashes at this very moment does, too; a refusal is far likelier, and is told as such. */
function closedSilently(host: string, cause?: unknown): AppError {
  return new AppError(
    "permission",
    `Authenticate to klio server "${host}": it closed the connection after the handshake, as one does that refused our client certificate`,
    { cause, hint: REFUSED_HINT },
  );
}
