/**
 * `klio backup show`: all that is known of one backup.
 *
 * @module
 */

import { formatBytes } from "../../base/format.ts";
import { formatLsn } from "../../domain/lsn.ts";
import { getBackup } from "../../features/catalog/mod.ts";
import { backupJson, backupState } from "../backup_view.ts";
import { openRepository, openWalServer } from "../clients.ts";
import type { RunCommand } from "../commands.ts";

/** See the module comment. */
export const run: RunCommand = async (context) => {
  const { args, print, signal } = context;
  const config = await context.loadConfig(["client", "client.base", "client.wal"]);
  const [name = ""] = args.positionals;
  using wal = await openWalServer(config, context);
  await using repository = await openRepository(config, context, "backup show");
  const backup = await getBackup(repository, { cluster: config.client.cluster_name, name, signal });
  const state = await backupState(backup, wal, { signal });
  if (args.boolean("json")) {
    print(`${backupJson(backup, state)}\n`);
    return;
  }
  const { metadata } = backup;
  const time = (seconds: number) => new Date(seconds * 1000).toISOString().replace(".000Z", "Z");
  const rows: readonly (readonly [string, string])[] = [
    ["Backup id", metadata.name],
    ["Cluster", metadata.clusterName],
    ["State", state],
    ["Started", time(metadata.startedAtSeconds)],
    ["Ended", time(metadata.stoppedAtSeconds)],
    ["Size", `${formatBytes(backup.sizeBytes)} in ${backup.files} files`],
    ["Timeline", String(metadata.timeline)],
    ["Positions", `${formatLsn(metadata.startLsn)} to ${formatLsn(metadata.endLsn)}`],
    ["WAL files", `${metadata.startWal} to ${metadata.endWal}`],
    ["Segment size", formatBytes(metadata.segmentSizeBytes)],
    ["System id", metadata.systemId ?? "unknown"],
    [
      "PostgreSQL",
      metadata.pgVersion === undefined
        ? "unknown"
        : `${Math.floor(metadata.pgVersion / 10_000)}.${metadata.pgVersion % 10_000}`,
    ],
    ["Data directory", metadata.dataDirectory],
    ...metadata.tablespaces.map((t) =>
      ["Tablespace", `${t.name} (${t.oid}) in ${t.path}`] as const
    ),
  ];
  print(rows.map(([label, text]) => `${`${label}:`.padEnd(17)}${text}\n`).join(""));
};
