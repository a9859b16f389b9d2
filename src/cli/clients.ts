/**
 * Wiring of the client side: from settings to the connections that commands work with.
 *
 * @module
 */

import { X509Certificate } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import { fromUtf8 } from "../base/bytes.ts";
import { AppError, isKind } from "../base/failure.ts";
import { type Identity, parseIdentity } from "../domain/identity.ts";
import type { BackupSource } from "../ports/postgres.ts";
import type { RepositorySession } from "../ports/repository_session.ts";
import type { ServerAddress } from "../adapters/grpc/channel.ts";
import type { ClientTls } from "../adapters/grpc/client_credentials.ts";
import { openRepositorySession } from "../adapters/grpc/repository_client.ts";
import { WalClient } from "../adapters/grpc/wal_client.ts";
import { openLocalFiles } from "../adapters/localfs/files.ts";
import { createBackupSource } from "../adapters/postgres/backup_source.ts";
import { absolutePath, splitHostPort } from "./arguments.ts";
import type { Settings } from "./settings.ts";

interface Running {
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

interface CertificatePaths {
  readonly server_cert_path: string;
  readonly client_cert_path: string;
  readonly client_key_path: string;
}

async function readPem(
  section: string,
  name: keyof CertificatePaths,
  paths: CertificatePaths,
): Promise<string> {
  const path = paths[name];
  try {
    return fromUtf8(await openLocalFiles().readFile(absolutePath(path)));
  } catch (cause) {
    const why = isKind(cause, "not_found") ? "no such file" : "cannot be read";
    throw new AppError("config", `Read file "${path}" of setting ${section}.${name}: ${why}`, {
      cause,
    });
  }
}

async function clientTls(section: string, paths: CertificatePaths): Promise<ClientTls> {
  return {
    trustedPem: await readPem(section, "server_cert_path", paths),
    certificatePem: await readPem(section, "client_cert_path", paths),
    keyPem: await readPem(section, "client_key_path", paths),
  };
}

/** Who the certificate says we are. Throws `permission` when that is not a client of the configured cluster. */
function checkedIdentity(certificatePem: string, cluster: string): Identity {
  const commonName = /(?:^|\n)CN=(.*)/.exec(new X509Certificate(certificatePem).subject)?.[1] ?? "";
  const identity = parseIdentity(commonName);
  if (identity.cluster !== cluster) {
    throw new AppError(
      "permission",
      `Use client certificate "CN=${commonName}" for cluster "${cluster}": it is for cluster "${identity.cluster}"`,
      { hint: "client.cluster_name must equal the part of the CN after the @" },
    );
  }
  return identity;
}

/** The identity of the certificate that the base server is shown. */
export async function identityOf(config: Settings<"client" | "client.base">): Promise<Identity> {
  const pem = await readPem("client.base", "client_cert_path", config["client.base"]);
  return checkedIdentity(pem, config.client.cluster_name);
}

/** A session with the base repository of the Klio server. */
export async function openRepository(
  config: Settings<"client" | "client.base">,
  running: Running,
  purpose: string,
): Promise<RepositorySession> {
  const settings = config["client.base"];
  const tls = await clientTls("client.base", settings);
  checkedIdentity(tls.certificatePem, config.client.cluster_name);
  const url = new URL(settings.url);
  const server: ServerAddress = {
    host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
    port: url.port === "" ? 443 : Number(url.port),
    tls,
  };
  return await openRepositorySession(
    { server, purpose: `klio ${purpose}`, clock: running.clock },
    running,
  );
}

/** The WAL server; connects when it is first used. */
export async function openWalServer(
  config: Settings<"client" | "client.wal">,
  running: Running,
): Promise<WalClient> {
  const settings = config["client.wal"];
  const tls = await clientTls("client.wal", settings);
  checkedIdentity(tls.certificatePem, config.client.cluster_name);
  return new WalClient({
    server: { ...splitHostPort(settings.address), tls },
    clock: running.clock,
  });
}

/** The PostgreSQL that `source.standard_dsn` names. */
export function postgresForBackup(config: Settings<"source">): BackupSource {
  return createBackupSource({ connectionString: config.source.standard_dsn });
}
