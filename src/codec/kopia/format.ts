/**
 * The two documents that open a repository: `kopia.repository` (plain JSON around an encrypted one) and `kopia.blobcfg`
 * (reference/kopia.md 3.2). We write format version 3 and read 2 and 3. What we do not understand we refuse: error
 * correction, other versions, required features and a running upgrade change how every other blob is to be read.
 *
 * @module
 */

import { z } from "zod";
import { assert } from "../../base/assert.ts";
import { type Bytes, fromUtf8, utf8 } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { goJson, type GoValue } from "../go_json.ts";
import { openAead, sealAead } from "./cipher.ts";
import { deriveKey, formatEncryptionKey } from "./kdf.ts";

/** Id of the format blob. */
export const FORMAT_BLOB_ID = "kopia.repository";
/** Id of the object-lock settings; written before the format blob. */
export const BLOB_CONFIG_ID = "kopia.blobcfg";
/** Version that we write. */
export const FORMAT_VERSION = 3;

/** Settings of the epoch manager; durations are whole nanoseconds at rest. */
export interface EpochParameters {
  readonly refreshFrequencyMs: number;
  readonly fullCheckpointFrequency: number;
  readonly cleanupSafetyMarginMs: number;
  readonly minEpochDurationMs: number;
  readonly advanceOnCount: number;
  readonly advanceOnTotalSizeBytes: number;
  readonly deleteParallelism: number;
}

/** What stock gives a new repository. */
export const DEFAULT_EPOCHS: EpochParameters = {
  refreshFrequencyMs: 20 * 60_000,
  fullCheckpointFrequency: 7,
  cleanupSafetyMarginMs: 4 * 3_600_000,
  minEpochDurationMs: 24 * 3_600_000,
  advanceOnCount: 20,
  advanceOnTotalSizeBytes: 10 << 20,
  deleteParallelism: 4,
};

/** Everything that a reader or writer must know; the keys are secret. */
export interface RepositoryFormat {
  /** 32 random bytes, public: the salt of every key derivation. */
  readonly uniqueId: Bytes;
  readonly hash: string;
  readonly encryption: string;
  readonly splitter: string;
  readonly hmacSecret: Bytes;
  readonly masterKey: Bytes;
  readonly version: number;
  readonly maxPackSizeBytes: number;
  readonly indexVersion: number;
  readonly epochs: EpochParameters;
}

/** Object-lock settings; the empty mode means none. */
export interface BlobConfig {
  readonly retentionMode: string;
  readonly retentionPeriodMs: number;
}

/** Password, nonce (12 random bytes) and key algorithm of an encoding. */
export interface SealOptions {
  readonly password: string;
  readonly nonce: Uint8Array;
  readonly keyAlgo: string;
}

const NS_PER_MS = 1_000_000;
const BLOB_BYTES_MAX = 1 << 20;
const BLOB_ENCRYPTION = "AES256_GCM";

const count = z.int().min(0);
const base64 = z.base64().transform((text) => Uint8Array.fromBase64(text));
const durationMs = z.int().min(0).transform((ns) => ns / NS_PER_MS);

const ENVELOPE = z.object({
  uniqueID: base64,
  keyAlgo: z.string(),
  encryption: z.string(),
  encryptedBlockFormat: base64,
});

// All fields may be absent when the epoch manager is off, which is then the message.
const EPOCHS = z.object({
  Enabled: z.boolean().default(false),
  EpochRefreshFrequency: durationMs.default(0),
  FullCheckpointFrequency: count.default(0),
  CleanupSafetyMargin: durationMs.default(0),
  MinEpochDuration: durationMs.default(0),
  EpochAdvanceOnCountThreshold: count.default(0),
  EpochAdvanceOnTotalSizeBytesThreshold: count.default(0),
  DeleteParallelism: count.default(0),
});

const FEATURE = z.object({
  feature: z.string(),
  ifNotUnderstood: z.object({ warn: z.boolean().default(false) }).default({ warn: false }),
});

const FORMAT = z.object({
  format: z.object({
    hash: z.string().default(""),
    encryption: z.string().default(""),
    ecc: z.string().default(""),
    eccOverheadPercent: count.default(0),
    secret: base64,
    masterKey: base64,
    version: count.default(0),
    maxPackSize: count.default(0),
    indexVersion: count.default(0),
    epochParameters: EPOCHS.prefault({}),
    splitter: z.string().default(""),
    upgradeLock: z.unknown().optional(),
    requiredFeatures: z.array(FEATURE).nullish(),
  }),
});

const BLOB_CONFIG = z.object({
  retentionMode: z.string().default(""),
  retentionPeriod: durationMs.default(0),
});

/** The bytes of `kopia.repository`, version 3. */
export function encodeFormatBlob(format: RepositoryFormat, options: SealOptions): Bytes {
  assert(format.version === FORMAT_VERSION, "format version 3 is written");
  assert(format.indexVersion === 2, "index version 2 is written");
  const { epochs } = format;
  const secret = {
    format: {
      hash: format.hash,
      encryption: format.encryption,
      secret: format.hmacSecret,
      masterKey: format.masterKey,
      version: format.version,
      maxPackSize: format.maxPackSizeBytes,
      indexVersion: format.indexVersion,
      epochParameters: {
        Enabled: true,
        EpochRefreshFrequency: nanoseconds(epochs.refreshFrequencyMs),
        FullCheckpointFrequency: epochs.fullCheckpointFrequency,
        CleanupSafetyMargin: nanoseconds(epochs.cleanupSafetyMarginMs),
        MinEpochDuration: nanoseconds(epochs.minEpochDurationMs),
        EpochAdvanceOnCountThreshold: epochs.advanceOnCount,
        EpochAdvanceOnTotalSizeBytesThreshold: epochs.advanceOnTotalSizeBytes,
        DeleteParallelism: epochs.deleteParallelism,
      },
      enablePasswordChange: true,
      splitter: format.splitter,
    },
  };
  const envelope = {
    tool: "https://github.com/kopia/kopia",
    buildVersion: "klio",
    buildInfo: "",
    uniqueID: format.uniqueId,
    keyAlgo: options.keyAlgo,
    encryption: BLOB_ENCRYPTION,
    encryptedBlockFormat: sealDocument(secret, format.uniqueId, options),
  };
  return utf8(goJson(envelope, 2) + "\n");
}

/**
 * Opens `kopia.repository`. Throws `permission` for a wrong password, `config` for what we do not support, `corruption`
 * for what is no format blob. Takes a while: see `kdf.ts`.
 */
export function decodeFormatBlob(bytes: Uint8Array, password: string): RepositoryFormat {
  const envelope = openEnvelope(bytes);
  const document = openDocument(envelope.encryptedBlockFormat, password, {
    blobId: FORMAT_BLOB_ID,
    uniqueId: envelope.uniqueID,
    keyAlgo: envelope.keyAlgo,
  });
  return readFormatDocument(document, envelope.uniqueID);
}

/** Judges the decrypted document. Throws `config` for what we do not support, `corruption` for what is malformed. */
export function readFormatDocument(document: unknown, uniqueId: Bytes): RepositoryFormat {
  const { format } = parseDocument(FORMAT, document, FORMAT_BLOB_ID);
  refuseUnknown(format);
  const epochs = format.epochParameters;
  return {
    uniqueId,
    hash: format.hash,
    encryption: format.encryption,
    splitter: format.splitter === "" ? "FIXED" : format.splitter,
    hmacSecret: format.secret,
    masterKey: format.masterKey,
    version: format.version,
    maxPackSizeBytes: format.maxPackSize,
    indexVersion: format.indexVersion,
    epochs: {
      refreshFrequencyMs: epochs.EpochRefreshFrequency,
      fullCheckpointFrequency: epochs.FullCheckpointFrequency,
      cleanupSafetyMarginMs: epochs.CleanupSafetyMargin,
      minEpochDurationMs: epochs.MinEpochDuration,
      advanceOnCount: epochs.EpochAdvanceOnCountThreshold,
      advanceOnTotalSizeBytes: epochs.EpochAdvanceOnTotalSizeBytesThreshold,
      deleteParallelism: epochs.DeleteParallelism,
    },
  };
}

/** The bytes of `kopia.blobcfg`. */
export function encodeBlobConfig(
  config: BlobConfig,
  uniqueId: Uint8Array,
  options: SealOptions,
): Bytes {
  const document = {
    retentionMode: config.retentionMode === "" ? undefined : config.retentionMode,
    retentionPeriod: config.retentionPeriodMs === 0
      ? undefined
      : nanoseconds(config.retentionPeriodMs),
  };
  return sealDocument(document, uniqueId, options);
}

/** Opens `kopia.blobcfg` with what stands in clear in the format blob. Errors as {@link decodeFormatBlob}. */
export function decodeBlobConfig(
  bytes: Uint8Array,
  password: string,
  formatBlob: Uint8Array,
): BlobConfig {
  const { uniqueID, keyAlgo } = openEnvelope(formatBlob);
  const document = openDocument(bytes, password, {
    blobId: BLOB_CONFIG_ID,
    uniqueId: uniqueID,
    keyAlgo,
  });
  const config = parseDocument(BLOB_CONFIG, document, BLOB_CONFIG_ID);
  return { retentionMode: config.retentionMode, retentionPeriodMs: config.retentionPeriod };
}

function refuseUnknown(format: z.output<typeof FORMAT>["format"]): void {
  const { version, indexVersion } = format;
  if (version < 2 || version > 3) {
    throw unsupported(`format version is ${version}, wanted 2 or 3`);
  }
  if (indexVersion !== 2) throw unsupported(`index version is ${indexVersion}, wanted 2`);
  if (!format.epochParameters.Enabled) throw unsupported("the epoch manager is off");
  if (format.ecc !== "" && format.eccOverheadPercent > 0) {
    throw unsupported(`error correction "${format.ecc}" is on`);
  }
  if (format.upgradeLock !== undefined && format.upgradeLock !== null) {
    throw unsupported("a format upgrade holds its lock");
  }
  for (const { feature, ifNotUnderstood } of format.requiredFeatures ?? []) {
    if (!ifNotUnderstood.warn) throw unsupported(`it requires feature "${feature}"`);
  }
}

function unsupported(reason: string): AppError {
  return new AppError("config", `Open repository format: ${reason}`);
}

function nanoseconds(ms: number): number {
  return Math.round(ms * NS_PER_MS);
}

function openEnvelope(bytes: Uint8Array): z.output<typeof ENVELOPE> {
  const envelope = parseDocument(ENVELOPE, parseJson(bytes, FORMAT_BLOB_ID), FORMAT_BLOB_ID);
  if (envelope.encryption !== BLOB_ENCRYPTION) {
    throw unsupported(`its encryption is "${envelope.encryption}", wanted "${BLOB_ENCRYPTION}"`);
  }
  return envelope;
}

/** Key and associated data of both documents. */
function documentKeys(keyAlgo: string, password: string, uniqueId: Uint8Array) {
  const key = formatEncryptionKey(keyAlgo, password, uniqueId);
  const derive = (info: string) => deriveKey({ key, salt: uniqueId, info, sizeBytes: 32 });
  return { key: derive("AES"), associated: derive("CHECKSUM") };
}

function sealDocument(document: GoValue, uniqueId: Uint8Array, options: SealOptions): Bytes {
  return sealAead("aes-256-gcm", {
    ...documentKeys(options.keyAlgo, options.password, uniqueId),
    nonce: options.nonce,
    plain: utf8(goJson(document)),
  });
}

function openDocument(
  sealed: Uint8Array,
  password: string,
  of: { readonly blobId: string; readonly uniqueId: Uint8Array; readonly keyAlgo: string },
): unknown {
  if (sealed.length > BLOB_BYTES_MAX) throw malformed(of.blobId, `${sealed.length} bytes`);
  const keys = documentKeys(of.keyAlgo, password, of.uniqueId);
  const plain = openAead("aes-256-gcm", { ...keys, sealed });
  if (plain === undefined) {
    throw new AppError("permission", `Decrypt "${of.blobId}": wrong password or damaged blob`, {
      hint: "check the repository password",
    });
  }
  return parseJson(plain, of.blobId);
}

function parseJson(bytes: Uint8Array, blobId: string): unknown {
  if (bytes.length > BLOB_BYTES_MAX) throw malformed(blobId, `${bytes.length} bytes`);
  try {
    return JSON.parse(fromUtf8(bytes));
  } catch (cause) {
    throw malformed(blobId, "not JSON", cause);
  }
}

function parseDocument<T>(schema: z.ZodType<T>, value: unknown, blobId: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  // The path names a field; the value may be a key and stays out.
  throw malformed(blobId, `field "${issue?.path.join(".") ?? ""}" is missing or malformed`);
}

function malformed(blobId: string, what: string, cause?: unknown): AppError {
  return new AppError("corruption", `Decode "${blobId}": ${what}`, { cause });
}
