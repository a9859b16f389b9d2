/**
 * Certificates for local use and for tests: an authority, server certificates, client certificates `user@cluster`
 * (RFC 5280, version 3). All keys are ECDSA P-256; certificates and PKCS#8 keys are PEM text. Files with keys must get
 * mode 0600: the caller's duty. Certificates of production come from elsewhere (cert-manager, a company's PKI), so
 * nothing here runs in a cluster.
 *
 * Written by hand over `codec/der` because the libraries for it bring some 25 packages and a global polyfill.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from "node:crypto";
import { isIP } from "node:net";
import { AppError } from "../../base/failure.ts";
import { utf8 } from "../../base/bytes.ts";
import * as der from "../../codec/der/der.ts";

const OID = {
  commonName: "2.5.4.3",
  ecdsaWithSha256: "1.2.840.10045.4.3.2",
  subjectKeyId: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  extendedKeyUsage: "2.5.29.37",
  serverAuth: "1.3.6.1.5.5.7.3.1",
  clientAuth: "1.3.6.1.5.5.7.3.2",
} as const;
const SIGNATURE_ALGORITHM = der.sequence(der.objectId(OID.ecdsaWithSha256));
/** GeneralName choices. */
const DNS_NAME = 2;
const IP_ADDRESS = 7;
const SERIAL_BYTES = 16;
const DAY_MS = 24 * 60 * 60 * 1000;
/** Clocks of containers differ a little: a certificate is valid from this long before it was made. */
const BACKDATE_MS = 5 * 60 * 1000;

/** A certificate with its private key, both PEM. */
export interface KeyedCertificate {
  readonly certificatePem: string;
  readonly keyPem: string;
}

/** When a certificate is valid, in milliseconds since the epoch. */
export interface Validity {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** An authority to create. */
export interface AuthorityRequest extends Validity {
  readonly commonName: string;
}

/** A server certificate to create. */
export interface ServerCertificateRequest extends Validity {
  /** DNS names and IP addresses, at least one; the first is the common name too. */
  readonly names: readonly string[];
}

/** A client certificate to create. */
export interface ClientCertificateRequest extends Validity {
  /** `user@cluster`. */
  readonly commonName: string;
}

/** All that a local set-up needs. */
export interface DevCertificates {
  readonly authority: KeyedCertificate;
  readonly server: KeyedCertificate;
  readonly client: KeyedCertificate;
}

/** Names that a local server answers to. */
export const LOCAL_NAMES: readonly string[] = ["localhost", "127.0.0.1", "::1"];

/** Options of {@link createDevCertificates}. */
export interface DevCertificateOptions {
  readonly cluster: string;
  readonly user: string;
  readonly nowMs: number;
  /** Default {@link LOCAL_NAMES}. */
  readonly serverNames?: readonly string[];
  /** Default 365. */
  readonly validDays?: number;
}

/** An authority, one server and one client certificate. */
export function createDevCertificates(options: DevCertificateOptions): DevCertificates {
  const validity = {
    notBeforeMs: options.nowMs - BACKDATE_MS,
    notAfterMs: options.nowMs + (options.validDays ?? 365) * DAY_MS,
  };
  const authority = createAuthority({ commonName: "klio development CA", ...validity });
  const server = issueServerCertificate(authority, {
    names: options.serverNames ?? LOCAL_NAMES,
    ...validity,
  });
  const commonName = `${options.user}@${options.cluster}`;
  return {
    authority,
    server,
    client: issueClientCertificate(authority, { commonName, ...validity }),
  };
}

/** A self-signed authority that signs leaves only. */
export function createAuthority(request: AuthorityRequest): KeyedCertificate {
  const keys = generateKeys();
  const subjectKeyId = createHash("sha1").update(publicKeyDer(keys.publicKey)).digest();
  return certificate({
    subject: request.commonName,
    issuer: request.commonName,
    validity: request,
    keys,
    signingKey: keys.privateKey,
    extensions: [
      extension(
        OID.basicConstraints,
        der.sequence(der.booleanTrue(), der.integer(new Uint8Array())),
        "critical",
      ),
      // keyCertSign (5) and cRLSign (6)
      extension(OID.keyUsage, der.bitString(Uint8Array.of(0b0000_0110), 1), "critical"),
      extension(OID.subjectKeyId, der.octetString(subjectKeyId)),
    ],
  });
}

/** A server certificate signed by `authority`. */
export function issueServerCertificate(
  authority: KeyedCertificate,
  request: ServerCertificateRequest,
): KeyedCertificate {
  return issue(authority, firstName(request), request, serverExtensions(request));
}

/** A server certificate that is its own issuer, as a Secret without a CA may hold. */
export function createSelfSignedServerCertificate(
  request: ServerCertificateRequest,
): KeyedCertificate {
  const keys = generateKeys();
  return certificate({
    subject: firstName(request),
    issuer: firstName(request),
    validity: request,
    keys,
    signingKey: keys.privateKey,
    extensions: serverExtensions(request),
  });
}

/** A client certificate signed by `authority`. */
export function issueClientCertificate(
  authority: KeyedCertificate,
  request: ClientCertificateRequest,
): KeyedCertificate {
  return issue(authority, request.commonName, request, leafExtensions(OID.clientAuth));
}

function issue(
  authority: KeyedCertificate,
  subject: string,
  validity: Validity,
  extensions: readonly Uint8Array[],
): KeyedCertificate {
  const issuer = /^CN=(.*)$/m.exec(new X509Certificate(authority.certificatePem).subject)?.[1];
  if (issuer === undefined) {
    throw new AppError("config", "Sign a certificate: the authority has no common name");
  }
  const signingKey = createPrivateKey(authority.keyPem);
  return certificate({ subject, issuer, validity, keys: generateKeys(), signingKey, extensions });
}

interface CertificateParts {
  readonly subject: string;
  readonly issuer: string;
  readonly validity: Validity;
  readonly keys: KeyPair;
  readonly signingKey: KeyObject;
  readonly extensions: readonly Uint8Array[];
}

function certificate(parts: CertificateParts): KeyedCertificate {
  const serial = randomBytes(SERIAL_BYTES);
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40; // positive, without leading zeros
  const tbs = der.sequence(
    der.explicit(0, der.integer(Uint8Array.of(2))), // version 3
    der.integer(serial),
    SIGNATURE_ALGORITHM,
    name(parts.issuer),
    der.sequence(der.time(parts.validity.notBeforeMs), der.time(parts.validity.notAfterMs)),
    name(parts.subject),
    publicKeyDer(parts.keys.publicKey),
    der.explicit(3, der.sequence(...parts.extensions)),
  );
  const signature = sign("sha256", tbs, parts.signingKey);
  const whole = der.sequence(tbs, SIGNATURE_ALGORITHM, der.bitString(signature));
  return {
    certificatePem: pem("CERTIFICATE", whole),
    keyPem: pem("PRIVATE KEY", parts.keys.privateKey.export({ type: "pkcs8", format: "der" })),
  };
}

function serverExtensions(request: ServerCertificateRequest): Uint8Array[] {
  const names = request.names.map((text) =>
    isIP(text) === 0
      ? der.implicit(DNS_NAME, utf8(text))
      : der.implicit(IP_ADDRESS, addressOctets(text))
  );
  return [
    ...leafExtensions(OID.serverAuth),
    extension(OID.subjectAltName, der.sequence(...names)),
  ];
}

function leafExtensions(purpose: string): Uint8Array[] {
  return [
    extension(OID.basicConstraints, der.sequence(), "critical"),
    // digitalSignature (0)
    extension(OID.keyUsage, der.bitString(Uint8Array.of(0b1000_0000), 7), "critical"),
    extension(OID.extendedKeyUsage, der.sequence(der.objectId(purpose))),
  ];
}

function extension(id: string, value: Uint8Array, critical?: "critical"): Uint8Array {
  const flag = critical === undefined ? [] : [der.booleanTrue()];
  return der.sequence(der.objectId(id), ...flag, der.octetString(value));
}

function name(commonName: string): Uint8Array {
  return der.sequence(
    der.set(der.sequence(der.objectId(OID.commonName), der.utf8String(commonName))),
  );
}

function firstName(request: ServerCertificateRequest): string {
  const [first] = request.names;
  if (first === undefined) {
    throw new AppError("usage", "Create a server certificate: wanted at least one name or address");
  }
  return first;
}

/** 4 or 16 octets of a valid address. */
function addressOctets(address: string): Uint8Array {
  if (isIP(address) === 4) return Uint8Array.from(address.split("."), Number);
  const [head = "", tail] = ipv6WithoutDots(address).split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const groups = [...left, ...new Array(8 - left.length - right.length).fill("0"), ...right];
  return Uint8Array.from(
    groups.flatMap((group) => {
      const value = Number.parseInt(group, 16);
      return [value >> 8, value & 0xff];
    }),
  );
}

/** `::ffff:10.0.0.1` with its last four octets as two groups. */
function ipv6WithoutDots(address: string): string {
  return address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) => {
    const group = (high: string, low: string) => (Number(high) * 256 + Number(low)).toString(16);
    return `${group(a, b)}:${group(c, d)}`;
  });
}

interface KeyPair {
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}

function generateKeys(): KeyPair {
  return generateKeyPairSync("ec", { namedCurve: "prime256v1" });
}

function publicKeyDer(key: KeyObject): Uint8Array {
  return key.export({ type: "spki", format: "der" });
}

function pem(label: string, content: Uint8Array): string {
  const lines = Buffer.from(content).toString("base64").replace(/.{64}(?=.)/g, "$&\n");
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
}
