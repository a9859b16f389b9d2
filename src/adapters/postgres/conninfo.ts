/**
 * PostgreSQL connection strings, in both forms that libpq reads: `host=/run/postgresql user=postgres` and
 * `postgresql://user@host:5432/db?sslmode=require` (PostgreSQL manual, section "Connection Strings"). One host only. What
 * klio cannot honour is refused rather than ignored: a setting about TLS that does nothing would be a lie.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";

/** libpq's TLS modes that klio knows. */
export const SSL_MODES = ["disable", "prefer", "require", "verify-ca", "verify-full"] as const;
/** One of {@link SSL_MODES}. */
export type SslMode = (typeof SSL_MODES)[number];

/** Where PostgreSQL is and as whom to connect. */
export interface ConnectionSettings {
  /** Host name, address, or absolute path of the directory that holds the UNIX socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly password: string | undefined;
  readonly applicationName: string | undefined;
  readonly sslMode: SslMode;
  /** Paths of PEM files. */
  readonly sslRootCert: string | undefined;
  readonly sslCert: string | undefined;
  readonly sslKey: string | undefined;
  readonly connectTimeoutMs: number;
}

const CONNECT_TIMEOUT_MS_DEFAULT = 30_000;
const KEYWORDS = [
  "host",
  "port",
  "user",
  "dbname",
  "password",
  "application_name",
  "sslmode",
  "sslrootcert",
  "sslcert",
  "sslkey",
  "connect_timeout",
] as const;
type Keyword = (typeof KEYWORDS)[number];

/** Parses a connection string. Throws `config`; the message never carries the string, which may hold a password. */
export function parseConnectionString(text: string): ConnectionSettings {
  const values = /^postgres(ql)?:\/\//.test(text) ? parseUri(text) : parseKeywords(text);
  const host = values.get("host") ?? "localhost";
  const user = values.get("user") ?? "postgres";
  const sslMode = values.get("sslmode") ?? "prefer";
  if (!isSslMode(sslMode)) {
    throw invalid(`sslmode "${sslMode}"`, `one of ${SSL_MODES.join(", ")}`);
  }
  if (host.includes(",")) throw invalid(`host "${host}"`, "one host");
  if ((values.get("sslcert") === undefined) !== (values.get("sslkey") === undefined)) {
    throw invalid("sslcert and sslkey", "both or none");
  }
  return {
    host,
    port: wholeNumber(values, "port", 5432, 65_535),
    user,
    database: values.get("dbname") ?? "postgres",
    password: values.get("password"),
    applicationName: values.get("application_name"),
    sslMode,
    sslRootCert: values.get("sslrootcert"),
    sslCert: values.get("sslcert"),
    sslKey: values.get("sslkey"),
    connectTimeoutMs: 1000 *
      wholeNumber(values, "connect_timeout", CONNECT_TIMEOUT_MS_DEFAULT / 1000, 3600),
  };
}

/** The keyword form, without the password; for messages and for `primary_conninfo`-like uses. */
export function formatConnectionString(
  settings: Pick<ConnectionSettings, "host" | "port" | "user" | "database">,
): string {
  const quote = (value: string | number) =>
    /^[A-Za-z0-9._/:-]+$/.test(String(value))
      ? String(value)
      : `'${String(value).replace(/[\\']/g, (c) => `\\${c}`)}'`;
  return `host=${quote(settings.host)} port=${settings.port} user=${quote(settings.user)} dbname=${
    quote(settings.database)
  }`;
}

/** True when `host` names a directory of UNIX sockets. */
export function isSocketDirectory(host: string): boolean {
  return host.startsWith("/");
}

function isSslMode(text: string): text is SslMode {
  return SSL_MODES.some((mode) => mode === text);
}

function isKeyword(text: string): text is Keyword {
  return KEYWORDS.some((keyword) => keyword === text);
}

function invalid(subject: string, wanted: string): AppError {
  return new AppError("config", `Read connection string: ${subject} found, wanted ${wanted}`, {
    hint: `known settings: ${KEYWORDS.join(", ")}`,
  });
}

function wholeNumber(
  values: ReadonlyMap<Keyword, string>,
  key: Keyword,
  fallback: number,
  max: number,
): number {
  const text = values.get(key);
  if (text === undefined) return fallback;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (value < 1 || value > max) throw invalid(`${key} "${text}"`, `a number from 1 to ${max}`);
  return value;
}

function store(values: Map<Keyword, string>, key: string, value: string): void {
  if (!isKeyword(key)) throw invalid(`unknown setting "${key}"`, "a setting klio knows");
  if (value !== "") values.set(key, value);
}

/** One `keyword = value` pair; the value bare or in single quotes, with backslash escapes. */
const PAIR = /\s*([a-z_]+)\s*=\s*(?:'((?:[^'\\]|\\[^])*)'|((?:[^\s'\\]|\\[^])*))(?=\s|$)/y;

function parseKeywords(text: string): ReadonlyMap<Keyword, string> {
  const values = new Map<Keyword, string>();
  PAIR.lastIndex = 0;
  while (PAIR.lastIndex < text.trimEnd().length) {
    const match = PAIR.exec(text);
    if (match === null) throw invalid("a malformed pair", 'pairs as in "host=/run user=postgres"');
    store(values, match[1] ?? "", (match[2] ?? match[3] ?? "").replace(/\\([^])/g, "$1"));
  }
  return values;
}

function parseUri(text: string): ReadonlyMap<Keyword, string> {
  const values = new Map<Keyword, string>();
  // A percent-encoded socket directory is no legal URL host: it is taken out before the URL parser sees it.
  const match = /^postgres(?:ql)?:\/\/(?:([^@/?]*)@)?([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/.exec(text);
  if (match === null) throw invalid("a malformed URI", "postgresql://user@host:port/database");
  try {
    const [user = "", ...password] = (match[1] ?? "").split(":");
    store(values, "user", decodeURIComponent(user));
    store(values, "password", decodeURIComponent(password.join(":")));
    const place = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(match[2] ?? "");
    if (place === null) throw invalid("a malformed host", "host:port");
    store(values, "host", decodeURIComponent((place[1] ?? "").replace(/^\[(.*)\]$/, "$1")));
    store(values, "port", place[2] ?? "");
    store(values, "dbname", decodeURIComponent(match[3] ?? ""));
    for (const pair of (match[4] ?? "").split("&").filter((p) => p !== "")) {
      const [key = "", ...value] = pair.split("=");
      store(values, decodeURIComponent(key), decodeURIComponent(value.join("=")));
    }
  } catch (error) {
    if (error instanceof URIError) throw invalid("a malformed %-escape", "%XX");
    throw error;
  }
  return values;
}
