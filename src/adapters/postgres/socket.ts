/**
 * Opens the socket to PostgreSQL: UNIX or TCP, then TLS as sslmode asks (SSLRequest, PostgreSQL protocol section "SSL
 * Session Encryption"). klio opens it itself, and hands it to `pg` for the start-up phase only, because a replication
 * connection takes it back afterwards, and because `pg` knows neither `prefer` nor an abort while connecting.
 *
 * @module
 */

import { connect as netConnect, isIP, type Socket } from "node:net";
import { connect as tlsConnect, type ConnectionOptions } from "node:tls";
import { deadline, type Waiting } from "../../base/abort.ts";
import { AppError } from "../../base/failure.ts";
import { type ConnectionSettings, isSocketDirectory } from "./conninfo.ts";

/** SSLRequest: length 8, code 80877103. */
const SSL_REQUEST = Uint8Array.of(0, 0, 0, 8, 4, 210, 22, 47);
const ACCEPTED = 0x53; // "S"
const DECLINED = 0x4e; // "N"

/** A connected socket, encrypted when sslmode wants it and the server offers it. Errors are the raw ones. */
export async function openSocket(settings: ConnectionSettings, options: Waiting): Promise<Socket> {
  using limit = deadline({
    signal: options.signal,
    timeoutMs: settings.connectTimeoutMs,
    what: "Connect to PostgreSQL",
  });
  const local = isSocketDirectory(settings.host);
  const plain = local
    ? netConnect({ path: `${settings.host}/.s.PGSQL.${settings.port}` })
    : netConnect({ host: settings.host, port: settings.port });
  try {
    await settled(plain, "connect", limit);
    plain.setNoDelay(true);
    plain.setKeepAlive(true, 30_000);
    // PostgreSQL never encrypts UNIX sockets; libpq ignores sslmode there too.
    if (local || settings.sslMode === "disable") return plain;
    const tls = await tlsOptions(settings);
    plain.write(SSL_REQUEST);
    const answer = await settled(plain, "data", limit);
    // More than one byte before our handshake would be a plain-text injection (CVE-2021-23222).
    if (!(answer instanceof Uint8Array) || answer.length !== 1) {
      throw new AppError("protocol", "Negotiate TLS with PostgreSQL: wanted one byte of answer");
    }
    if (answer[0] === DECLINED && settings.sslMode === "prefer") return plain;
    if (answer[0] !== ACCEPTED) {
      throw new AppError(
        "source",
        `Negotiate TLS with PostgreSQL: the server offers none, sslmode is ${settings.sslMode}`,
        { hint: "set ssl = on in postgresql.conf, or use sslmode=prefer" },
      );
    }
    const encrypted = tlsConnect({ ...tls, socket: plain });
    await settled(encrypted, "secureConnect", limit);
    return encrypted;
  } catch (error) {
    plain.destroy();
    throw error;
  }
}

/** libpq's meaning of the modes: only verify-* (or a given root with `require`) look at the certificate. */
async function tlsOptions(settings: ConnectionSettings): Promise<ConnectionOptions> {
  const verify = settings.sslMode.startsWith("verify-") ||
    (settings.sslMode === "require" && settings.sslRootCert !== undefined);
  if (verify && settings.sslRootCert === undefined) {
    throw new AppError("config", `Use sslmode=${settings.sslMode}: sslrootcert is missing`);
  }
  const ca = await readPem(settings.sslRootCert, "sslrootcert");
  const cert = await readPem(settings.sslCert, "sslcert");
  const key = await readPem(settings.sslKey, "sslkey");
  return {
    rejectUnauthorized: verify,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    host: settings.host,
    ...(isIP(settings.host) === 0 ? { servername: settings.host } : {}),
    ...(settings.sslMode === "verify-full" ? {} : { checkServerIdentity: () => undefined }),
  };
}

async function readPem(path: string | undefined, keyword: string): Promise<string | undefined> {
  if (path === undefined) return undefined;
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    throw new AppError("config", `Read ${keyword} "${path}"`, { cause: error });
  }
}

/** The first argument of the event, or the failure that came instead. */
function settled(socket: Socket, event: string, options: Waiting): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const done = (act: () => void) => {
      socket.off(event, onEvent);
      socket.off("error", onError);
      socket.off("close", onClose);
      options.signal.removeEventListener("abort", onAbort);
      act();
    };
    const onEvent = (value: unknown) => {
      if (event === "data") socket.pause();
      done(() => resolve(value));
    };
    const onError = (error: Error) => done(() => reject(error));
    const onClose = () =>
      done(() =>
        reject(new AppError("source", "Connect to PostgreSQL: the connection was closed"))
      );
    const onAbort = () => done(() => reject(options.signal.reason));
    if (options.signal.aborted) return onAbort();
    socket.on(event, onEvent);
    socket.on("error", onError);
    socket.on("close", onClose);
    options.signal.addEventListener("abort", onAbort);
  });
}
