/**
 * `klio backup list`: every backup of the cluster with its true state.
 *
 * @module
 */

import { describeError } from "../../base/failure.ts";
import { formatBytes } from "../../base/format.ts";
import { formatLsn } from "../../domain/lsn.ts";
import { listBackups } from "../../features/catalog/mod.ts";
import { backupJson, backupState } from "../backup_view.ts";
import { openRepository, openWalServer } from "../clients.ts";
import type { RunCommand } from "../commands.ts";
import { table } from "../table.ts";

/** See the module comment. */
export const run: RunCommand = async (context) => {
  const { args, print, signal } = context;
  const config = await context.loadConfig(["client", "client.base", "client.wal"]);
  using wal = await openWalServer(config, context);
  await using repository = await openRepository(config, context, "backup list");
  const catalog = await listBackups(repository, { cluster: config.client.cluster_name, signal });
  for (const unreadable of catalog.unreadable) {
    context.log.error(
      "Cannot read the metadata of a backup",
      { backup: unreadable.name },
      unreadable.error,
    );
  }
  const states: string[] = [];
  for (const backup of catalog.backups) states.push(await backupState(backup, wal, { signal }));
  if (args.boolean("json")) {
    const readable = catalog.backups.map((backup, i) => backupJson(backup, states[i] ?? ""));
    const broken = catalog.unreadable.map((b) =>
      JSON.stringify({ name: b.name, state: `unreadable: ${describeError(b.error)}` })
    );
    print(`[${[...readable, ...broken].join(",")}]\n`);
    return;
  }
  print(table(
    ["BACKUP ID", "ENDED (UTC)", "SIZE", "FILES", "START LSN", "END LSN", "STATE"],
    [
      ...catalog.backups.map(({ metadata, sizeBytes, files }, i) => [
        metadata.name,
        new Date(metadata.stoppedAtSeconds * 1000).toISOString().slice(0, 19).replace("T", " "),
        formatBytes(sizeBytes),
        String(files),
        formatLsn(metadata.startLsn),
        formatLsn(metadata.endLsn),
        states[i] ?? "",
      ]),
      ...catalog.unreadable.map((b) => [b.name, "-", "-", "-", "-", "-", "unreadable"]),
    ],
  ));
};
