/**
 * `klio server`: base backups and WAL of many clusters from local directories (tier 1).
 *
 * @module
 */

import { fromUtf8 } from "../../base/bytes.ts";
import { AppError, isKind } from "../../base/failure.ts";
import { openLocalBlobStore } from "../../adapters/localfs/blob_store.ts";
import { lockFile } from "../../adapters/localfs/lock.ts";
import { openLocalFiles } from "../../adapters/localfs/files.ts";
import { BASE_MESSAGE_BYTES_MAX, WAL_MESSAGE_BYTES_MAX } from "../../adapters/grpc/options.ts";
import { GrpcServer } from "../../adapters/grpc/server.ts";
import type { ServerTls } from "../../adapters/grpc/server_credentials.ts";
import {
  createRepository,
  openRepository,
  type Repository,
} from "../../features/repository/mod.ts";
import { verifyRecords, WalArchive } from "../../features/walarchive/mod.ts";
import { kopiaSessionService } from "../../rpc/kopia_session.ts";
import { statusOf } from "../../rpc/status.ts";
import { walStreamService } from "../../rpc/wal_stream.ts";
import { walService } from "../../rpc/wal_v1.ts";
import type { VerificationPolicy } from "../../domain/verification.ts";
import type { Files } from "../../ports/files.ts";
import { absolutePath, splitHostPort } from "../arguments.ts";
import type { CommandContext, RunCommand } from "../commands.ts";
import type { Settings } from "../settings.ts";

/** Below the 30 seconds that Kubernetes grants a pod by default. */
const DRAIN_TIMEOUT_MS = 20_000;

type ServerSettings = Settings<"tls" | "tier1" | "tier1.base" | "tier1.wal">;

/** See the module comment. */
export const run: RunCommand = async (context) => {
  const config = await context.loadConfig(["tls", "tier1", "tier1.base", "tier1.wal"]);
  const log = context.log.with({ component: "server" });
  const files = openLocalFiles();
  const tls = await readTls(files, config);
  const password = await readEncryptionKey(files, config.tier1.encryption_key_file);
  await using resources = new AsyncDisposableStack();
  const repository = resources.use(
    await openTier1(context, config["tier1.base"].repository, password),
  );
  const archive = await openArchive(
    context,
    { root: absolutePath(config["tier1.wal"].path), policy: config["tier1.wal"].verification },
    password,
    resources,
  );
  const common = { tls, statusOf, log };
  const base = resources.use(
    await GrpcServer.listen({
      ...common,
      ...splitHostPort(config["tier1.base"].listen_address),
      services: [
        kopiaSessionService(({ user, cluster, purpose }, options) =>
          repository.openSession({ user, host: cluster, purpose }, options)
        ),
      ],
      messageBytesMax: BASE_MESSAGE_BYTES_MAX,
    }),
  );
  const wal = resources.use(
    await GrpcServer.listen({
      ...common,
      ...splitHostPort(config["tier1.wal"].listen_address),
      services: [walService(archive), walStreamService(archive)],
      messageBytesMax: WAL_MESSAGE_BYTES_MAX,
    }),
  );
  log.info("Server is ready", {
    base_address: addressOf(config["tier1.base"].listen_address, base),
    wal_address: addressOf(config["tier1.wal"].listen_address, wal),
    repository: config["tier1.base"].repository,
  });
  await stopAsked(context.signal);
  log.info("Draining", { base_calls: base.calls, wal_calls: wal.calls });
  await Promise.all([base, wal].map((server) => server.close({ timeoutMs: DRAIN_TIMEOUT_MS })));
  log.info("Server has stopped");
};

function stopAsked(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

function addressOf(configured: string, server: GrpcServer): string {
  return configured.replace(/:\d+$/, `:${server.port}`);
}

/** The repository in `path`; created when the directory has none. */
async function openTier1(
  context: CommandContext,
  path: string,
  password: string,
): Promise<Repository> {
  const { clock, random, signal } = context;
  const store = await openLocalBlobStore(
    { files: openLocalFiles(), random, root: absolutePath(path) },
    { signal },
  );
  const deps = { store, clock, random, password };
  try {
    return await openRepository(deps, { signal });
  } catch (error) {
    if (!isKind(error, "not_found")) throw error;
  }
  context.log.info("Creating the base repository", { directory: path });
  await createRepository(deps, { signal });
  return await openRepository(deps, { signal });
}

/** The archive in `root`, owned by this process alone. */
async function openArchive(
  context: CommandContext,
  { root, policy }: { readonly root: string; readonly policy: VerificationPolicy },
  password: string,
  resources: AsyncDisposableStack,
): Promise<WalArchive> {
  const { clock, random } = context;
  const files = openLocalFiles();
  await files.makeDirectory(root, 0o700);
  resources.use(await lockFile(`${root}/.lock`));
  const { log } = context;
  const beginVerification = verifyRecords({
    policy,
    log: log.with({ component: "wal-verification" }),
  });
  const options = { files, clock, random, log, root, password, beginVerification };
  return resources.use(await WalArchive.open(options));
}

async function readSetting(files: Files, key: string, path: string): Promise<string> {
  try {
    return fromUtf8(await files.readFile(absolutePath(path)));
  } catch (cause) {
    throw new AppError(
      "config",
      `Read file "${path}" of setting ${key}: ${
        isKind(cause, "not_found") ? "no such file" : "cannot be read"
      }`,
      { cause },
    );
  }
}

async function readTls(files: Files, { tls }: ServerSettings): Promise<ServerTls> {
  return {
    certificatePem: await readSetting(files, "tls.cert", tls.cert),
    keyPem: await readSetting(files, "tls.key", tls.key),
    clientAuthorityPem: await readSetting(files, "tls.client_ca_cert", tls.client_ca_cert),
  };
}

const ENCRYPTION_KEY_LENGTH_MIN = 8;

async function readEncryptionKey(files: Files, path: string): Promise<string> {
  const [key = ""] = (await readSetting(files, "tier1.encryption_key_file", path)).split(
    /\r?\n/,
    1,
  );
  if (key.length < ENCRYPTION_KEY_LENGTH_MIN) {
    throw new AppError(
      "config",
      `Read encryption key from "${path}": the first line has ${key.length} characters, wanted at least ${ENCRYPTION_KEY_LENGTH_MIN}`,
      {
        hint: "for example: head -c 32 /dev/urandom | base64 > encryption.key",
      },
    );
  }
  return key;
}
