/**
 * The one definition of klio's configuration (design decision 13): zod schemas per section. Keys follow upstream Klio's
 * configuration file (reference/klio.md section 4), so that existing files are understood. Flags, environment names, help
 * and the README's table are derived from these schemas; `config.ts` loads them.
 *
 * @module
 */

import { z } from "zod";
import { APPLICATION_NAME, DEFAULT_SLOT, PORTS } from "../domain/names.ts";
import { isName } from "../domain/identity.ts";
import { VERIFICATION_POLICIES } from "../domain/verification.ts";
import { LOG_LEVELS } from "../base/log.ts";

const PATH = z.string().min(1);

const HOST_PORT = z.string().refine((text) => {
  const match = /^(?:\[[0-9A-Fa-f:.]+\]|[^:[\]\s]+):(\d{1,5})$/.exec(text);
  return match !== null && Number(match[1]) <= 65_535;
}, { error: "wanted host:port" });

const BASE_URL = z.string().refine((text) => {
  try {
    const url = new URL(text);
    return url.protocol === "https:" && url.hostname !== "" && url.pathname === "/";
  } catch {
    return false; // not a URL at all: the message below says what is wanted
  }
}, { error: `wanted https://host:port` });

const CERTIFICATES = {
  server_cert_path: PATH.describe(
    "PEM file with the certificate (or CA) of the Klio server to trust",
  ),
  client_cert_path: PATH.describe("PEM file with the client certificate, CN user@cluster"),
  client_key_path: PATH.describe("PEM file with the private key of the client certificate"),
};

/** Every section of the configuration, by its path in the file. */
export const SECTIONS = {
  log: z.strictObject({
    level: z.enum(LOG_LEVELS).default("info").describe("least severe level that is logged"),
    format: z.enum(["auto", "json", "text"]).default("auto")
      .describe("auto: text on a terminal, JSON lines otherwise"),
  }),
  source: z.strictObject({
    dsn: z.string().min(1).describe("connection string of PostgreSQL for replication")
      .default(`user=postgres application_name=${APPLICATION_NAME}`),
    standard_dsn: z.string().min(1).describe("connection string of PostgreSQL for SQL")
      .default(`user=postgres dbname=postgres application_name=${APPLICATION_NAME}`),
    slot: z.string().regex(/^[a-z0-9_]{1,63}$/, {
      error: "wanted 1 to 63 lower-case letters, digits or underscores",
    }).default(DEFAULT_SLOT).describe("physical replication slot"),
    standby_message_timeout_seconds: z.int().min(0).max(3600).default(10)
      .describe("longest time between two status messages to PostgreSQL; 0 means 10"),
    flush_timeout_ms: z.int().min(0).max(60_000).default(0)
      .describe("how long WAL may wait for more before it is sent; 0 sends it at once"),
    buffer_size: z.int().min(0).max(16 << 20).default(1 << 20)
      .describe("bytes of WAL that are joined before they are sent, at most; 0 means 1 MiB"),
    slot_wal_budget_bytes: z.int().min(0).default(0)
      .describe("WAL that the slot may hold back before it is an emergency; 0 for no such limit"),
    slot_release: z.enum(["never", "over_budget"]).default("never")
      .describe(
        "over_budget: give up the slot and the WAL it holds when the budget is exceeded, to save PostgreSQL's disk",
      ),
  }),
  client: z.strictObject({
    cluster_name: z.string().refine(isName, { error: "wanted a cluster name" })
      .describe(
        "name of the cluster on the Klio server; equals the host part of the client certificate's CN",
      ),
  }),
  "client.base": z.strictObject({
    url: BASE_URL.describe(`Klio base server, https://host:${PORTS.baseTier1}`),
    ...CERTIFICATES,
  }),
  "client.wal": z.strictObject({
    address: HOST_PORT.describe(`Klio WAL server, host:${PORTS.walTier1}`),
    ...CERTIFICATES,
  }),
  tls: z.strictObject({
    cert: PATH.describe("PEM file with the server certificate"),
    key: PATH.describe("PEM file with the private key of the server certificate"),
    client_ca_cert: PATH.describe("PEM file with the CA that signs client certificates"),
  }),
  tier1: z.strictObject({
    encryption_key_file: PATH.describe("file whose first line is the encryption key of tier 1"),
  }),
  "tier1.base": z.strictObject({
    repository: PATH.describe("directory of the base backup repository"),
    listen_address: HOST_PORT.default(`0.0.0.0:${PORTS.baseTier1}`)
      .describe("where the base server listens"),
  }),
  "tier1.wal": z.strictObject({
    path: PATH.describe("directory of the WAL archive"),
    listen_address: HOST_PORT.default(`0.0.0.0:${PORTS.walTier1}`)
      .describe("where the WAL server listens"),
    verification: z.enum(VERIFICATION_POLICIES).default("hold")
      .describe(
        "hold: WAL is refused from a damaged record on; warn: it is archived, with an error in the log",
      ),
  }),
} as const;

/** Path of a section, as in the configuration file. */
export type SectionName = keyof typeof SECTIONS;

/** Typed values of the given sections. */
export type Settings<S extends SectionName> = { readonly [K in S]: z.infer<(typeof SECTIONS)[K]> };

/** One key of the configuration. */
export interface Setting {
  readonly section: SectionName;
  /** Key inside the section. */
  readonly name: string;
  /** `client.wal.address`. */
  readonly key: string;
  /** `client-wal-address`. */
  readonly flag: string;
  /** `KLIO_CLIENT_WAL_ADDRESS`. */
  readonly env: string;
  readonly type: "string" | "integer";
  /** What may be given, for help and messages. */
  readonly wanted: string;
  readonly help: string;
  readonly defaultText: string | undefined;
}

function unwrap(
  schema: z.core.$ZodType,
): { readonly inner: z.core.$ZodType; readonly value: unknown } {
  if (schema instanceof z.ZodDefault) {
    return { inner: schema.def.innerType, value: schema.def.defaultValue };
  }
  return { inner: schema, value: undefined };
}

function describeLeaf(section: SectionName, name: string, schema: z.ZodType): Setting {
  const key = `${section}.${name}`;
  const { inner, value } = unwrap(schema);
  const type = inner instanceof z.ZodNumber ? "integer" : "string";
  const wanted = inner instanceof z.ZodEnum
    ? `one of ${inner.options.join(", ")}`
    : inner instanceof z.ZodNumber
    ? `an integer from ${inner.minValue} to ${inner.maxValue}`
    : "a non-empty string";
  return {
    section,
    name,
    key,
    flag: key.replaceAll(/[._]/g, "-"),
    env: `KLIO_${key.replaceAll(".", "_").toUpperCase()}`,
    type,
    wanted,
    help: schema.description ?? (inner instanceof z.ZodType ? inner.description ?? "" : ""),
    defaultText: value === undefined ? undefined : String(value),
  };
}

/** Every key of the given sections, in the order of the schemas. */
export function settingsOf(sections: readonly SectionName[]): readonly Setting[] {
  return sections.flatMap((section) =>
    Object.entries(SECTIONS[section].shape).map(([name, schema]) =>
      describeLeaf(section, name, schema)
    )
  );
}

/** Every section. */
export const SECTION_NAMES = Object.keys(SECTIONS).filter((s): s is SectionName => s in SECTIONS);
