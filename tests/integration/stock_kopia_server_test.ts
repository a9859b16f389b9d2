/**
 * Our client against a stock kopia server: sessions, contents, manifests and errors of somebody else's implementation. Stock
 * kopia knows no client certificates, so we log in by password.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { openRepositorySession } from "../../src/adapters/grpc/repository_client.ts";
import { SYSTEM_CLOCK } from "../../src/adapters/process/clock.ts";
import {
  createSelfSignedServerCertificate,
  LOCAL_NAMES,
} from "../../src/adapters/x509/certificates.ts";
import { fromUtf8, utf8 } from "../../src/base/bytes.ts";
import { isKind } from "../../src/base/failure.ts";
import { addressOf, validNow } from "../support/network.ts";
import { reportNoGo, stockKopia, StockKopiaClient } from "../support/stock_kopia.ts";

const waiting = { signal: new AbortController().signal };
const PASSWORD = "repository-password";
const LOGIN = { user: "klio", host: "cluster-a", password: "user-password" };

Deno.test("our client works with a stock kopia server", async () => {
  const kopia = await stockKopia();
  if (kopia === undefined) return reportNoGo();
  const home = await Deno.makeTempDir({ prefix: "klio-kopia-server-" });
  try {
    await useServer(kopia, home);
  } finally {
    await Deno.remove(home, { recursive: true });
  }
});

async function useServer(kopia: string, home: string): Promise<void> {
  const certificate = createSelfSignedServerCertificate({ names: LOCAL_NAMES, ...validNow() });
  await Deno.writeTextFile(`${home}/server.crt`, certificate.certificatePem);
  await Deno.writeTextFile(`${home}/server.key`, certificate.keyPem);
  const owner = new StockKopiaClient({ kopia, home, password: PASSWORD });
  await owner.run("repository", "create", "filesystem", `--path=${home}/repository`);
  const user = `${LOGIN.user}@${LOGIN.host}`;
  await owner.run("server", "users", "add", user, `--user-password=${LOGIN.password}`);

  await using server = await startKopiaServer(kopia, home);
  const address = addressOf(server.port, { trustedPem: certificate.certificatePem });
  const options = { server: address, purpose: "test", clock: SYSTEM_CLOCK };

  await assert.rejects(
    openRepositorySession({ ...options, login: { ...LOGIN, password: "wrong" } }, waiting),
    (error) => isKind(error, "permission"),
  );

  await using session = await openRepositorySession({ ...options, login: LOGIN }, waiting);
  const { hashFunction, hmacSecret, splitter } = session.parameters;
  assert.equal(hashFunction, "BLAKE2B-256-128");
  assert.equal(splitter, "DYNAMIC-4M-BUZHASH");
  assert.equal(hmacSecret.length, 32);

  const blocks = Array.from({ length: 50 }, (_, i) => new Uint8Array(100_000).fill(i));
  const ids = await Promise.all(
    blocks.map((data, i) =>
      session.writeContent({ prefix: i % 2 === 0 ? "" : "k", data, compression: 0x1101 }, waiting)
    ),
  );
  assert.equal(new Set(ids).size, blocks.length);
  const labels = { type: "snapshot", username: "klio", hostname: "cluster-a", path: "/x" };
  const json = utf8('{"id":"1"}');
  const manifestId = await session.putManifest({ labels, json }, waiting);
  await session.flush(waiting);

  await using reader = await openRepositorySession({ ...options, login: LOGIN }, waiting);
  const read = await Promise.all(ids.map((id) => reader.readContent(id, waiting)));
  assert.deepEqual(read, blocks);
  assert.equal((await reader.contentInfo(ids[0] ?? "", waiting))?.originalLength, 100_000);
  const absent = "00112233445566778899aabbccddeeff";
  assert.equal(await reader.contentInfo(absent, waiting), undefined);
  await assert.rejects(reader.readContent(absent, waiting), (e) => isKind(e, "not_found"));

  const found = await reader.findManifests(labels, waiting);
  assert.deepEqual(found.map(({ id, labels }) => [id, { ...labels }]), [[manifestId, labels]]);
  assert.equal(fromUtf8((await reader.readManifest(manifestId, waiting)).json), '{"id":"1"}');
  await assert.rejects(reader.readManifest(absent, waiting), (e) => isKind(e, "not_found"));
  const foreign = { ...labels, hostname: "cluster-b" };
  await assert.rejects(
    reader.putManifest({ labels: foreign, json }, waiting),
    (error) => isKind(error, "permission"),
  );
  await reader.removeManifest(manifestId, waiting);
  await reader.flush(waiting);
  assert.deepEqual(await reader.findManifests(labels, waiting), []);
}

async function startKopiaServer(
  kopia: string,
  home: string,
): Promise<AsyncDisposable & { readonly port: number }> {
  const child = spawn(kopia, [
    `--config-file=${home}/kopia.config`,
    `--log-dir=${home}/log`,
    ...["server", "start", "--address=127.0.0.1:0", "--disable-file-logging"],
    ...[`--tls-cert-file=${home}/server.crt`, `--tls-key-file=${home}/server.key`],
  ], {
    env: { KOPIA_PASSWORD: PASSWORD, KOPIA_CHECK_FOR_UPDATES: "false", HOME: home },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const port = await portOf(child);
  return {
    port,
    async [Symbol.asyncDispose]() {
      const exited = child.exitCode === null ? once(child, "exit") : undefined;
      child.kill("SIGKILL");
      await exited;
    },
  };
}

/** Reads on after the answer: a Go program whose standard error is closed dies of the next line it logs. */
function portOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    let text = "";
    child.stderr?.on("data", (chunk) => {
      text += String(chunk);
      const port = /SERVER ADDRESS: https:\/\/[^\n]*:(\d+)/.exec(text)?.[1];
      if (port !== undefined) resolve(Number(port));
    });
    child.once("exit", () => reject(new Error(`kopia server did not start: ${text}`)));
  });
}
