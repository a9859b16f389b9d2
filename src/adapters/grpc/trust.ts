/**
 * Which server certificate a client accepts. The trusted PEM text (contents of a Secret, in any order) decides:
 *
 * - it holds a leaf: only that certificate, byte for byte, whoever signed it; its dates and names must be right too. Covers
 *   the self-signed leaf, the leaf with its `ca.crt` and the CA-signed leaf alone.
 * - it holds authorities only: any certificate that they signed for this server's name.
 *
 * The TLS layer is told not to reject by itself, because it cannot express the first case (a CA-signed leaf is no root);
 * so nothing but {@link judgeServer} stands between us and a foreign server, and it runs before a byte of HTTP is sent.
 * That the peer owns the key of the certificate it shows is proven by the handshake even then; `grpc_tls_test.ts` has a
 * server that does not.
 *
 * @module
 */

import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { AppError } from "../../base/failure.ts";

const CERTIFICATE_PEM = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;

/** What a client trusts. */
export interface Trust {
  readonly certificates: readonly X509Certificate[];
  /** True when one of them is a leaf: then no other certificate is accepted. */
  readonly pinned: boolean;
}

/** Parses PEM text with one certificate or more. Throws `config`. */
export function parseTrust(pem: string): Trust {
  const certificates = parseCertificates(pem, "Read trusted server certificate");
  return { certificates, pinned: certificates.some((certificate) => !certificate.ca) };
}

/** All certificates in PEM text, at least one. Throws `config`. */
export function parseCertificates(pem: string, what: string): readonly X509Certificate[] {
  const texts = pem.match(CERTIFICATE_PEM) ?? [];
  if (texts.length === 0) throw new AppError("config", `${what}: no PEM certificate found`);
  return texts.map((text) => {
    try {
      return new X509Certificate(text);
    } catch (cause) {
      throw new AppError("config", `${what}: not a valid certificate`, { cause });
    }
  });
}

/** What a handshake told of the server. */
export interface ServerEvidence {
  /** DER of the certificate that the server showed and whose key it owns. */
  readonly raw: Uint8Array;
  /** The TLS layer verified the chain to our roots, the dates and the name. */
  readonly authorized: boolean;
  readonly authorizationError: string;
  /** Name or address that we wanted to reach. */
  readonly host: string;
  readonly nowMs: number;
}

/** The reason to refuse this server; undefined when it is the one we trust. */
export function judgeServer(trust: Trust, evidence: ServerEvidence): AppError | undefined {
  const certificate = readShown(evidence.raw);
  if (certificate === undefined) return refusal(evidence, "it shows no readable certificate");
  const listed = trust.certificates.some((one) => one.raw.equals(evidence.raw));
  if (!listed && trust.pinned) {
    return refusal(evidence, `its certificate "${certificate.subject}" is not the trusted one`);
  }
  const fault = faultOf(certificate, evidence);
  if (fault !== undefined) return refusal(evidence, fault);
  if (listed || evidence.authorized) return undefined;
  const why = evidence.authorizationError;
  return refusal(
    evidence,
    `no trusted CA signed its certificate "${certificate.subject}" (${why})`,
  );
}

/** What is wrong with a certificate whoever signed it. */
function faultOf(certificate: X509Certificate, evidence: ServerEvidence): string | undefined {
  const { host, nowMs } = evidence;
  if (nowMs < Date.parse(certificate.validFrom)) {
    return `its certificate is not valid before ${certificate.validFrom}`;
  }
  if (nowMs > Date.parse(certificate.validTo)) {
    return `its certificate expired at ${certificate.validTo}`;
  }
  const named = isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host);
  if (named !== undefined) return undefined;
  return `its certificate is for "${certificate.subjectAltName ?? ""}", not for this name`;
}

function refusal(evidence: ServerEvidence, why: string): AppError {
  return new AppError("permission", `Trust klio server "${evidence.host}": ${why}`, {
    hint: "the trusted certificate must be the server's own or that of the CA which signed it",
  });
}

function readShown(raw: Uint8Array): X509Certificate | undefined {
  try {
    return new X509Certificate(raw);
  } catch {
    return undefined; // nothing shown, or nothing that can be read: refused
  }
}
