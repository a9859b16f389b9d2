/**
 * Who may talk to whom: real handshakes between our client and our server, and with an impostor.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { Channel, type ServerAddress } from "../../src/adapters/grpc/channel.ts";
import { SYSTEM_CLOCK } from "../../src/adapters/process/clock.ts";
import {
  createAuthority,
  createSelfSignedServerCertificate,
  issueClientCertificate,
  issueServerCertificate,
  LOCAL_NAMES,
} from "../../src/adapters/x509/certificates.ts";
import { fromUtf8, utf8 } from "../../src/base/bytes.ts";
import { AppError, type FailureKind } from "../../src/base/failure.ts";
import * as der from "../../src/codec/der/der.ts";
import type { RpcService } from "../../src/ports/rpc.ts";
import { FakeClock } from "../support/fake_clock.ts";
import {
  addressOf,
  AUTHORITY,
  CLIENT,
  clientCertificate,
  endBackoffTimer,
  expired,
  SERVER,
  startServer,
  validNow,
} from "../support/network.ts";
import { hasOpenssl, startOpensslServer } from "../support/openssl.ts";

const waiting = { signal: new AbortController().signal };
const OTHER_AUTHORITY = createAuthority({ commonName: "test CA", ...validNow() });

/** Answers with the identity that the server saw. */
const WHO_AM_I: RpcService = {
  name: "test.Identity",
  methods: {
    async Who(call) {
      await call.receive();
      await call.send(utf8(`${call.identity.user}@${call.identity.cluster}`));
    },
  },
};

async function ask(server: ServerAddress, clock = SYSTEM_CLOCK): Promise<string> {
  using channel = new Channel({ server, messageBytesMax: 1 << 20, clock });
  return fromUtf8(await channel.unary("/test.Identity/Who", utf8("who"), waiting));
}

async function assertRefused(
  answer: Promise<unknown>,
  kind: FailureKind,
  message: RegExp,
): Promise<void> {
  await assert.rejects(answer, (error) => {
    assert.ok(error instanceof AppError);
    assert.equal(error.kind, kind);
    const causes = [error.message, error.cause instanceof Error ? error.cause.message : ""];
    assert.match(causes.join(" / "), message);
    return true;
  });
}

Deno.test("a server with a CA is trusted by name and by address, and sees who calls", async () => {
  await using server = await startServer([WHO_AM_I]);
  for (const host of ["localhost", "127.0.0.1"]) {
    assert.equal(await ask(addressOf(server.port, { host })), "klio@cluster-a");
  }
});

Deno.test("a CA-signed leaf is trusted with its CA and alone, by name and by address", async () => {
  await using server = await startServer([WHO_AM_I]);
  const withAuthority = SERVER.certificatePem + AUTHORITY.certificatePem;
  for (const trustedPem of [withAuthority, SERVER.certificatePem]) {
    for (const host of ["localhost", "127.0.0.1"]) {
      assert.equal(await ask(addressOf(server.port, { host, trustedPem })), "klio@cluster-a");
    }
  }
});

Deno.test("a self-signed leaf is trusted, by name and by address", async () => {
  const certificate = createSelfSignedServerCertificate({ names: LOCAL_NAMES, ...validNow() });
  await using server = await startServer([WHO_AM_I], { certificate });
  const trustedPem = certificate.certificatePem;
  for (const host of ["localhost", "127.0.0.1"]) {
    assert.equal(await ask(addressOf(server.port, { host, trustedPem })), "klio@cluster-a");
  }
});

Deno.test("a different certificate is never accepted, whoever signed it", async () => {
  const names = LOCAL_NAMES;
  const impostors = [
    issueServerCertificate(AUTHORITY, { names, ...validNow() }),
    issueServerCertificate(OTHER_AUTHORITY, { names, ...validNow() }),
    createSelfSignedServerCertificate({ names, ...validNow() }),
  ];
  const selfSigned = createSelfSignedServerCertificate({ names, ...validNow() });
  const trusted = [
    SERVER.certificatePem,
    SERVER.certificatePem + AUTHORITY.certificatePem,
    selfSigned.certificatePem,
  ];
  for (const certificate of impostors) {
    await using server = await startServer([WHO_AM_I], { certificate });
    for (const trustedPem of trusted) {
      const address = addressOf(server.port, { trustedPem });
      await assertRefused(ask(address), "permission", /not the trusted one/);
    }
  }
});

Deno.test("with a CA as trust, a server of another CA or for another name is refused", async () => {
  const names = ["elsewhere.example"];
  const foreign = issueServerCertificate(OTHER_AUTHORITY, { names: LOCAL_NAMES, ...validNow() });
  const misnamed = issueServerCertificate(AUTHORITY, { names, ...validNow() });
  const client = issueClientCertificate(AUTHORITY, { commonName: "localhost", ...validNow() });
  for (const certificate of [foreign, misnamed, client]) {
    await using server = await startServer([WHO_AM_I], { certificate });
    for (const host of ["localhost", "127.0.0.1"]) {
      const address = addressOf(server.port, { host });
      await assertRefused(ask(address), "permission", /Trust klio server/);
    }
  }
});

Deno.test("the trusted certificate itself is refused for another name", async () => {
  const certificate = issueServerCertificate(AUTHORITY, {
    names: ["elsewhere.example"],
    ...validNow(),
  });
  await using server = await startServer([WHO_AM_I], { certificate });
  for (const host of ["localhost", "127.0.0.1"]) {
    const address = addressOf(server.port, { host, trustedPem: certificate.certificatePem });
    await assertRefused(ask(address), "permission", /elsewhere\.example/);
  }
});

Deno.test("an expired server certificate is refused, by CA and as the trusted one", async () => {
  const certificate = issueServerCertificate(AUTHORITY, { names: LOCAL_NAMES, ...expired() });
  await using server = await startServer([WHO_AM_I], { certificate });
  for (const trustedPem of [AUTHORITY.certificatePem, certificate.certificatePem]) {
    const address = addressOf(server.port, { trustedPem });
    await assertRefused(ask(address), "permission", /expired/i);
  }
});

Deno.test("an impostor with our certificate but without its key is refused", async (t) => {
  if (!hasOpenssl()) {
    await t.step("not run: no openssl", () => {});
    return;
  }
  const directory = await mkdtemp(`${tmpdir()}/klio-impostor-`);
  try {
    const certificatePath = `${directory}/server.crt`;
    const keyPath = `${directory}/server.key`;
    await writeFile(certificatePath, SERVER.certificatePem);
    await writeFile(keyPath, forgedKey(SERVER.certificatePem, CLIENT.keyPem));
    await using server = await startOpensslServer({ certificatePath, keyPath });
    for (const trustedPem of [SERVER.certificatePem, AUTHORITY.certificatePem]) {
      const address = addressOf(server.port, { trustedPem });
      await assertRefused(ask(address), "repository", /Talk TLS/);
    }
  } finally {
    await rm(directory, { recursive: true });
  }
});

/** The private scalar of one key with the public point of another: openssl takes the pair for a match. */
function forgedKey(certificatePem: string, keyPem: string): string {
  const publicKey = new X509Certificate(certificatePem).publicKey.export({ format: "jwk" });
  const privateKey = createPrivateKey(keyPem).export({ format: "jwk" });
  const bytes = (text: string | undefined) => Buffer.from(text ?? "", "base64url");
  const point = Buffer.concat([Uint8Array.of(4), bytes(publicKey.x), bytes(publicKey.y)]);
  const ecKey = der.sequence(
    der.integer(Uint8Array.of(1)),
    der.octetString(bytes(privateKey.d)),
    der.explicit(1, der.bitString(point)),
  );
  const algorithm = der.sequence(
    der.objectId("1.2.840.10045.2.1"),
    der.objectId("1.2.840.10045.3.1.7"),
  );
  const whole = der.sequence(der.integer(new Uint8Array()), algorithm, der.octetString(ecKey));
  const text = Buffer.from(whole).toString("base64").replace(/.{64}(?=.)/g, "$&\n");
  return `-----BEGIN PRIVATE KEY-----\n${text}\n-----END PRIVATE KEY-----\n`;
}

Deno.test("a client of another CA is refused, and told so", async () => {
  await using server = await startServer([WHO_AM_I]);
  const certificate = issueClientCertificate(OTHER_AUTHORITY, {
    commonName: "klio@cluster-a",
    ...validNow(),
  });
  const address = addressOf(server.port, { certificate });
  await assertRefused(ask(address), "permission", /refused our client certificate/);
});

Deno.test("a server certificate does not work as a client certificate", async () => {
  await using server = await startServer([WHO_AM_I]);
  const certificate = issueServerCertificate(AUTHORITY, {
    names: ["klio@cluster-a"],
    ...validNow(),
  });
  const address = addressOf(server.port, { certificate });
  await assertRefused(ask(address), "permission", /refused our client certificate/);
});

Deno.test("an expired client certificate is refused before connecting, and by the server", async () => {
  await using server = await startServer([WHO_AM_I]);
  const validity = expired();
  const certificate = issueClientCertificate(AUTHORITY, {
    commonName: "klio@cluster-a",
    ...validity,
  });
  const address = addressOf(server.port, { certificate });
  await assertRefused(ask(address), "permission", /Use client certificate .* expired at/);
  const slowClock = new FakeClock({ startMs: validity.notBeforeMs + 1000 });
  const pinned = addressOf(server.port, { certificate });
  await assert.rejects(ask(pinned, slowClock), (error) => {
    return error instanceof AppError && error.kind === "permission";
  });
});

Deno.test("a common name without a cluster is refused by name", async () => {
  await using server = await startServer([WHO_AM_I]);
  for (const commonName of ["klio", "klio@", "@cluster-a", "a@b@c", "klio@../etc", "klio@a b"]) {
    const address = addressOf(server.port, { certificate: clientCertificate(commonName) });
    await assertRefused(
      ask(address),
      "permission",
      /wanted a common name of the form user@cluster/,
    );
  }
});

Deno.test("nobody listening is a repository failure that names the address", async () => {
  const server = await startServer([WHO_AM_I]);
  const { port } = server;
  await server[Symbol.asyncDispose]();
  for (const host of ["localhost", "127.0.0.1"]) {
    const message = new RegExp(`Reach klio server "${host}:${port}"`);
    await assertRefused(ask(addressOf(port, { host })), "repository", message);
    await endBackoffTimer();
  }
});

Deno.test("PEM that is none, and a key of another certificate, are config failures", async () => {
  const trustedPem = "no certificate here";
  await assertRefused(ask(addressOf(1, { trustedPem })), "config", /no PEM certificate found/);
  const certificate = { certificatePem: CLIENT.certificatePem, keyPem: "nonsense" };
  await assertRefused(ask(addressOf(1, { certificate })), "config", /client certificate and key/);
  const mixed = { certificatePem: CLIENT.certificatePem, keyPem: SERVER.keyPem };
  await assertRefused(ask(addressOf(1, { certificate: mixed })), "config", /another certificate/);
  await assertRefused(startServer([], { certificate }), "config", /server certificate and key/);
});

Deno.test("new certificates serve new connections while an open call goes on", async () => {
  const hold = Promise.withResolvers<void>();
  const holding: RpcService = {
    name: "test.Hold",
    methods: {
      async Hold(call) {
        await call.receive();
        await call.send(utf8("held"));
        await hold.promise;
        await call.send(utf8("released"));
      },
    },
  };
  await using server = await startServer([WHO_AM_I, holding]);
  const options = { messageBytesMax: 1 << 20, clock: SYSTEM_CLOCK };
  using channel = new Channel({ ...options, server: addressOf(server.port) });
  const call = channel.open("/test.Hold/Hold", waiting);
  await call.send(utf8("x"), waiting);
  assert.equal(fromUtf8(await call.receive(waiting) ?? utf8("")), "held");
  const renewed = createSelfSignedServerCertificate({ names: LOCAL_NAMES, ...validNow() });
  server.reloadTls({ ...renewed, clientAuthorityPem: AUTHORITY.certificatePem });
  const trustedPem = renewed.certificatePem;
  assert.equal(await ask(addressOf(server.port, { trustedPem })), "klio@cluster-a");
  await assertRefused(ask(addressOf(server.port)), "permission", /Trust klio server/);
  hold.resolve();
  assert.equal(fromUtf8(await call.receive(waiting) ?? utf8("")), "released");
  assert.equal(await call.receive(waiting), undefined);
});
