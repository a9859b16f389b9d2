/**
 * `klio backup run`: one base backup of the PostgreSQL that `source.standard_dsn` names.
 *
 * @module
 */

import { runBackup } from "../../features/backup/mod.ts";
import { encodeBackupMetadata } from "../../domain/backup.ts";
import { openLocalFiles } from "../../adapters/localfs/files.ts";
import { parseCount } from "../arguments.ts";
import { identityOf, openRepository, openWalServer, postgresForBackup } from "../clients.ts";
import type { RunCommand } from "../commands.ts";
import { Progress } from "../progress.ts";

const WAL_TIMEOUT_SECONDS_DEFAULT = 300;
const PARALLEL_FILES = 4;

/** See the module comment. */
export const run: RunCommand = async (context) => {
  const { args, clock, log, print, signal } = context;
  const config = await context.loadConfig(["source", "client", "client.base", "client.wal"]);
  const walTimeoutSeconds = parseCount(
    "--wal-timeout-seconds",
    args.string("wal-timeout-seconds") ?? String(WAL_TIMEOUT_SECONDS_DEFAULT),
    { min: 1, max: 86_400 },
  );
  const name = args.string("name");
  const identity = await identityOf(config);
  using wal = await openWalServer(config, context);
  await using repository = await openRepository(config, context, "backup run");
  const progress = new Progress(context);
  try {
    const { metadata, statistics } = await runBackup({
      source: postgresForBackup(config),
      files: openLocalFiles(),
      repository,
      wal,
      clock,
      log: log.with({ component: "backup" }),
    }, {
      identity,
      ...(name === undefined ? {} : { name }),
      parallelFiles: PARALLEL_FILES,
      walTimeoutMs: walTimeoutSeconds * 1000,
      onProgress: (p) =>
        progress.update({
          phase: p.phase.replaceAll("_", " "),
          doneBytes: p.bytes,
          ...(p.phase === "measuring" ? {} : { totalBytes: p.bytesTotal }),
          doneFiles: p.files,
        }),
    }, { signal });
    // The document as it is stored, with what it cost beside it.
    const document = encodeBackupMetadata(metadata);
    print(`${document.slice(0, -1)},"statistics":${JSON.stringify(statistics)}}\n`);
  } finally {
    progress.done();
  }
};
