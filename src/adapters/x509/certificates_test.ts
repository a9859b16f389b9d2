import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { AppError } from "../../base/failure.ts";
import {
  createAuthority,
  createDevCertificates,
  createSelfSignedServerCertificate,
  issueClientCertificate,
  issueServerCertificate,
  type KeyedCertificate,
} from "./certificates.ts";

const NOW_MS = Date.UTC(2026, 0, 2, 3, 4, 5);
const VALIDITY = { notBeforeMs: NOW_MS, notAfterMs: NOW_MS + 86_400_000 };

function read(certificate: KeyedCertificate): X509Certificate {
  return new X509Certificate(certificate.certificatePem);
}

Deno.test("createDevCertificates() makes a CA that signed both leaves", () => {
  const made = createDevCertificates({ cluster: "c1", user: "klio", nowMs: NOW_MS });
  const authority = read(made.authority);
  assert.ok(authority.ca);
  assert.ok(authority.verify(authority.publicKey));
  for (const leaf of [read(made.server), read(made.client)]) {
    assert.ok(!leaf.ca);
    assert.ok(leaf.checkIssued(authority));
    assert.ok(leaf.verify(authority.publicKey));
    assert.equal(Date.parse(leaf.validFrom), NOW_MS - 5 * 60_000);
    assert.equal(Date.parse(leaf.validTo), NOW_MS + 365 * 86_400_000);
  }
  assert.equal(read(made.client).subject, "CN=klio@c1");
  assert.equal(read(made.server).checkHost("localhost"), "localhost");
});

Deno.test("a server certificate carries its names and addresses", () => {
  const addresses = ["10.1.2.3", "::1", "fe80::1:2", "2001:db8:0:1:2:3:4:5", "::ffff:10.0.0.1"];
  const authority = createAuthority({ commonName: "CA", ...VALIDITY });
  const names = ["klio.example", ...addresses];
  const server = read(issueServerCertificate(authority, { names, ...VALIDITY }));
  assert.equal(server.checkHost("klio.example"), "klio.example");
  assert.equal(server.checkHost("other.example"), undefined);
  for (const address of addresses) assert.ok(server.checkIP(address), address);
  assert.equal(server.checkIP("10.1.2.4"), undefined);
});

Deno.test("certificates may be valid beyond 2050", () => {
  const notAfterMs = Date.UTC(2060, 5, 1);
  const certificate = createSelfSignedServerCertificate({
    names: ["a"],
    notBeforeMs: NOW_MS,
    notAfterMs,
  });
  assert.equal(Date.parse(read(certificate).validTo), notAfterMs);
});

Deno.test("a key fits only its own certificate, and serial numbers differ", () => {
  const authority = createAuthority({ commonName: "CA", ...VALIDITY });
  const make = () => issueClientCertificate(authority, { commonName: "a@b", ...VALIDITY });
  const [first, second] = [read(make()), read(make())];
  assert.notEqual(first.serialNumber, second.serialNumber);
  assert.ok(!first.publicKey.equals(second.publicKey));
});

Deno.test("a server certificate without a name is refused", () => {
  assert.throws(
    () => createSelfSignedServerCertificate({ names: [], ...VALIDITY }),
    (error) => error instanceof AppError && error.kind === "usage",
  );
});
