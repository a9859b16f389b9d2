/**
 * The configuration files of a throw-away set-up: a server and a client in one directory, certificates in `certs`.
 *
 * @module
 */

import type { Random } from "../../base/clock.ts";
import type { LocalCluster } from "../../adapters/postgres/local_cluster.ts";

/** Where a server listens: `127.0.0.1:4711`. */
export interface ServerAddresses {
  readonly base: string;
  readonly wal: string;
}

/** Writes `server.yaml` and an encryption key; the server will listen on free ports of 127.0.0.1. */
export async function writeServerConfig(
  { directory, random }: { readonly directory: string; readonly random: Random },
): Promise<void> {
  await Deno.writeTextFile(`${directory}/encryption.key`, random.bytes(32).toHex() + "\n", {
    mode: 0o600,
  });
  const config = {
    tls: {
      cert: `${directory}/certs/server.crt`,
      key: `${directory}/certs/server.key`,
      client_ca_cert: `${directory}/certs/ca.crt`,
    },
    tier1: {
      encryption_key_file: `${directory}/encryption.key`,
      base: { repository: `${directory}/server/base`, listen_address: "127.0.0.1:0" },
      wal: { path: `${directory}/server/wal`, listen_address: "127.0.0.1:0" },
    },
  };
  await Deno.writeTextFile(`${directory}/server.yaml`, JSON.stringify(config, undefined, 2)); // JSON is YAML
}

/** Writes `client.yaml` and lets the user that PostgreSQL runs as read the client's key. */
export async function writeClientConfig(request: {
  readonly directory: string;
  readonly cluster: string;
  readonly server: ServerAddresses;
  readonly primary: LocalCluster;
}): Promise<void> {
  const { cluster, directory, primary, server } = request;
  const local = (address: string) => address.replace("127.0.0.1", "localhost");
  const certificates = {
    server_cert_path: `${directory}/certs/ca.crt`,
    client_cert_path: `${directory}/certs/client.crt`,
    client_key_path: `${directory}/certs/client.key`,
  };
  const config = {
    source: {
      dsn: primary.connectionString("socket"),
      standard_dsn: primary.connectionString("tcp"),
    },
    client: {
      cluster_name: cluster,
      base: { url: `https://${local(server.base)}`, ...certificates },
      wal: { address: local(server.wal), ...certificates },
    },
  };
  await Deno.writeTextFile(`${directory}/client.yaml`, JSON.stringify(config, undefined, 2));
  // restore_command runs as PostgreSQL's user and needs the client's key: these are throw-away certificates.
  if (primary.account !== undefined) {
    await Deno.chown(`${directory}/certs/client.key`, primary.account.uid, primary.account.gid);
  }
}
