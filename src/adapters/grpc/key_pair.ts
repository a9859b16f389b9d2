/**
 * A check of certificate and key before they are used: the TLS layer accepts a wrong pair and fails later, for every
 * connection and without a reason.
 *
 * @module
 */

import { createPrivateKey, X509Certificate } from "node:crypto";
import { AppError } from "../../base/failure.ts";

/** Throws `config` unless the (first) certificate and the key are PEM and belong together. */
export function checkKeyPair(
  pair: { readonly certificatePem: string; readonly keyPem: string },
  whose: "client" | "server",
): void {
  const what = `Load ${whose} certificate and key`;
  let matches: boolean;
  try {
    const certificate = new X509Certificate(pair.certificatePem);
    matches = certificate.checkPrivateKey(createPrivateKey(pair.keyPem));
  } catch (cause) {
    throw new AppError("config", `${what}: not readable as PEM`, { cause });
  }
  if (!matches) throw new AppError("config", `${what}: the key is of another certificate`);
}
