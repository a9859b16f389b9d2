/**
 * `klio restore`: a data directory that PostgreSQL can be started on, with recovery prepared.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";
import { formatBytes, formatDuration } from "../../base/format.ts";
import { parseLsn } from "../../domain/lsn.ts";
import { parseTargetTime, type RecoveryTarget } from "../../domain/recovery_target.ts";
import { runRestore } from "../../features/restore/mod.ts";
import { openLocalFiles } from "../../adapters/localfs/files.ts";
import { ownCommand, shellCommand } from "../../adapters/process/self.ts";
import { absolutePath, parseMappings, parseOwner } from "../arguments.ts";
import { openRepository } from "../clients.ts";
import type { RunCommand } from "../commands.ts";
import type { Arguments } from "../flags.ts";
import { Progress } from "../progress.ts";
import { type Settings, settingsOf } from "../settings.ts";

const PARALLEL_FILES = 8;

/** See the module comment. */
export const run: RunCommand = async (context) => {
  const { args, clock, log, print, signal } = context;
  const config = await context.loadConfig(["client", "client.base", "client.wal"]);
  const [directory = ""] = args.positionals;
  const owner = args.string("owner");
  const backupName = args.string("backup-id");
  const target = targetOf(args);
  const tablespacePaths = parseMappings("--tablespace", args.strings("tablespace"));
  await using repository = await openRepository(config, context, "restore");
  const progress = new Progress(context);
  try {
    const { metadata, bytes, files, seconds } = await runRestore({
      repository,
      files: openLocalFiles(),
      clock,
      log: log.with({ component: "restore" }),
    }, {
      cluster: config.client.cluster_name,
      ...(backupName === undefined ? {} : { backupName }),
      target,
      targetDirectory: absolutePath(directory),
      tablespacePaths,
      ...(owner === undefined ? {} : { owner: parseOwner("--owner", owner) }),
      recovery: {
        restoreCommand: restoreCommand(config),
        targetAction: "promote",
        targetTimeline: "latest",
      },
      parallelFiles: PARALLEL_FILES,
      onProgress: (p) =>
        progress.update({
          phase: p.phase,
          doneBytes: p.bytes,
          totalBytes: p.bytesTotal,
          doneFiles: p.files,
        }),
    }, { signal });
    progress.done();
    print(
      `Restored backup "${metadata.name}" into ${absolutePath(directory)}: ${
        formatBytes(bytes)
      } in ${files} files, ` +
        `${
          formatDuration(seconds * 1000)
        }.\nStart PostgreSQL on it: it fetches WAL from the Klio server, recovers, and accepts writes.\n`,
    );
  } finally {
    progress.done();
  }
};

function targetOf(args: Arguments): RecoveryTarget {
  const time = args.string("target-time");
  const position = args.string("target-lsn");
  const immediate = args.boolean("target-immediate");
  if ([time !== undefined, position !== undefined, immediate].filter(Boolean).length > 1) {
    throw new AppError(
      "usage",
      "Choose a recovery target: only one of --target-time, --target-lsn and --target-immediate can be given",
    );
  }
  if (time !== undefined) return { kind: "time", atUs: parseTargetTime(time) };
  if (position !== undefined) return { kind: "lsn", lsn: parseLsn(position) };
  return immediate ? { kind: "immediate" } : { kind: "latest" };
}

/** Self-contained: PostgreSQL runs it with another environment, long after this command has ended. */
function restoreCommand(config: Settings<"client" | "client.wal">): string {
  const values: Readonly<Record<string, string>> = {
    "client.cluster_name": config.client.cluster_name,
    ...Object.fromEntries(
      Object.entries(config["client.wal"]).map(([name, value]) => [
        `client.wal.${name}`,
        name.endsWith("_path") ? absolutePath(value) : value,
      ]),
    ),
  };
  const flags = settingsOf(["client", "client.wal"]).map((s) => `--${s.flag}=${values[s.key]}`);
  // A percent sign means something to PostgreSQL; %f and %p are WAL file name and destination.
  const command = shellCommand(ownCommand(), ["wal", "get", ...flags]).replaceAll("%", "%%");
  return `${command} "%f" "%p"`;
}
