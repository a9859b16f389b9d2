/**
 * TLS 1.3 of a server: every client must show a certificate that the client CA signed. Material can be replaced while
 * connections are open: they go on, new ones use the new material.
 *
 * @module
 */

import type { SecureContextOptions } from "node:tls";
import { ServerCredentials } from "@grpc/grpc-js";
import { checkKeyPair } from "./key_pair.ts";
import { FLOW_CONTROL_WINDOW_BYTES } from "./options.ts";
import { parseCertificates } from "./trust.ts";

/** TLS material of a server, all PEM. */
export interface ServerTls {
  /** The server's certificate, followed by intermediates if any. */
  readonly certificatePem: string;
  readonly keyPem: string;
  /** Authorities whose client certificates are accepted. */
  readonly clientAuthorityPem: string;
}

/** See the module comment. */
export class MutualTlsCredentials extends ServerCredentials {
  /** Throws `config` for unusable PEM. */
  constructor(tls: ServerTls) {
    const context = contextOptions(tls);
    // The library has an option for the window, but heeds it in clients only.
    const settings = { initialWindowSize: FLOW_CONTROL_WINDOW_BYTES };
    super({ requestCert: true, rejectUnauthorized: true, settings, ...context }, context);
  }

  /** From now on, new connections use this. Throws `config` for unusable PEM and then changes nothing. */
  reload(tls: ServerTls): void {
    this.updateSecureContextOptions(contextOptions(tls));
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

function contextOptions(tls: ServerTls): SecureContextOptions {
  checkKeyPair(tls, "server");
  parseCertificates(tls.clientAuthorityPem, "Load the CA of client certificates");
  return {
    minVersion: "TLSv1.3",
    cert: tls.certificatePem,
    key: tls.keyPem,
    ca: tls.clientAuthorityPem,
  };
}
