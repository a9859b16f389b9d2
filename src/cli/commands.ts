/**
 * The table of klio's commands: what each accepts, how it is explained, and where its code is loaded from when it runs.
 * A role that is not built yet is absent. Code is loaded on demand, so that `klio wal get`, which PostgreSQL starts for
 * every WAL file of a recovery, does not load the server.
 *
 * @module
 */

import type { Clock, Random } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import type { Accepts, Arguments, Flag } from "./flags.ts";
import type { SectionName, Settings } from "./settings.ts";

/** What a running command works with. */
export interface CommandContext {
  readonly args: Arguments;
  readonly loadConfig: <const S extends SectionName>(
    sections: readonly S[],
  ) => Promise<Settings<S>>;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
  /** Aborts on the first SIGTERM or SIGINT: finish what was begun, then return. */
  readonly signal: AbortSignal;
  /** Standard output is for results only; everything else goes to the log. */
  readonly print: (text: string) => void;
  /** Standard error is a terminal and the log is text: bars are welcome. */
  readonly interactive: boolean;
}

/** The code of a command; a number is the exit code, nothing means 0. */
export type RunCommand = (context: CommandContext) => Promise<number | void>;

/** A row of {@link COMMANDS}. */
export interface Command extends Accepts {
  readonly summary: string;
  readonly description: string;
  /** Configuration that the command reads; each key is a flag too. */
  readonly sections: readonly SectionName[];
  readonly examples: readonly string[];
  readonly load: () => Promise<{ readonly run: RunCommand }>;
}

const JSON_FLAG: Flag = { name: "json", type: "boolean", help: "print JSON instead of a table" };

const CLIENT: readonly SectionName[] = ["client", "client.base", "client.wal"];

/** Every command that is built. */
export const COMMANDS: readonly Command[] = [
  {
    command: "server",
    summary: "run the Klio server: base backups and WAL of many clusters",
    description:
      "Serves tier 1 from local directories over mutual TLS: base backups in a repository of Kopia's standard format, WAL in " +
      "an encrypted archive. Creates both when they do not exist. SIGTERM drains: calls that run may finish, nothing new begins.",
    flags: [],
    positionals: [],
    sections: ["tls", "tier1", "tier1.base", "tier1.wal"],
    examples: ["klio server --config server.yaml"],
    load: () => import("./commands/server.ts"),
  },
  {
    command: "stream-wal",
    summary: "stream WAL from PostgreSQL to the Klio server in real time",
    description:
      "Connects to PostgreSQL as a physical replication client and sends WAL to the Klio server as it is written. PostgreSQL is told " +
      "that a position is flushed only after the server has it on disk. Reconnects by itself; SIGTERM ends it in good order.",
    flags: [],
    positionals: [],
    sections: ["source", "client", "client.wal"],
    examples: [
      "klio stream-wal --config client.yaml",
      'klio stream-wal --config client.yaml --source-dsn "host=/var/run/postgresql user=postgres"',
    ],
    load: () => import("./commands/stream_wal.ts"),
  },
  {
    command: "backup run",
    summary: "take a base backup",
    description:
      "Copies the data directory and all tablespaces of a running PostgreSQL into the base repository, deduplicated, then waits until " +
      "the WAL it needs is complete on the Klio server. Prints the backup's metadata document.",
    flags: [
      {
        name: "name",
        type: "string",
        placeholder: "NAME",
        help: "name of the backup; default backup-YYYYMMDDHHMMSS in UTC",
      },
      {
        name: "wal-timeout-seconds",
        type: "string",
        placeholder: "N",
        help: "longest wait for the backup's WAL (default 300)",
      },
    ],
    positionals: [],
    sections: ["source", ...CLIENT],
    examples: [
      "klio backup run --config client.yaml",
      "klio backup run --config client.yaml --name before-upgrade",
    ],
    load: () => import("./commands/backup_run.ts"),
  },
  {
    command: "backup list",
    summary: "list the base backups of this cluster",
    description:
      "Lists every backup with its state. `complete` means that all its parts and all the WAL it needs are on the server.",
    flags: [JSON_FLAG],
    positionals: [],
    sections: CLIENT,
    examples: [
      "klio backup list --config client.yaml",
      "klio backup list --config client.yaml --json",
    ],
    load: () => import("./commands/backup_list.ts"),
  },
  {
    command: "backup show",
    summary: "show one base backup",
    description: "Shows what is known of one backup: times, positions, WAL files, parts and state.",
    flags: [JSON_FLAG],
    positionals: [{
      name: "BACKUP-ID",
      help: "name of the backup, as `klio backup list` prints it",
    }],
    sections: CLIENT,
    examples: ["klio backup show backup-20260102030405 --config client.yaml"],
    load: () => import("./commands/backup_show.ts"),
  },
  {
    command: "wal get",
    summary: "fetch one WAL file from the archive",
    description:
      "Fetches a WAL segment or timeline history; made for PostgreSQL's restore_command. When the segment is not complete yet, what " +
      "is durable of it is delivered, filled up with zeros. Exit code 4 says that the archive positively does not have the file.",
    flags: [],
    positionals: [
      { name: "WAL-NAME", help: "%f of restore_command" },
      { name: "DESTINATION", help: "%p of restore_command; written aside, then renamed" },
    ],
    sections: ["client", "client.wal"],
    examples: ["restore_command = 'klio wal get --config client.yaml %f %p'"],
    load: () => import("./commands/wal_get.ts"),
  },
  {
    command: "restore",
    summary: "restore a base backup and prepare recovery",
    description:
      "Restores into an empty directory and writes the recovery settings, so that PostgreSQL replays WAL up to the target when it is " +
      "started there. Without a target, everything that is durable on the Klio server is replayed.",
    flags: [
      {
        name: "backup-id",
        type: "string",
        placeholder: "NAME",
        help: "restore this backup instead of choosing one",
      },
      {
        name: "target-time",
        type: "string",
        placeholder: "TIME",
        help: "recover up to this time, RFC 3339; without zone it is UTC",
      },
      {
        name: "target-lsn",
        type: "string",
        placeholder: "LSN",
        help: "recover up to this position, as in 0/3000028",
      },
      {
        name: "target-immediate",
        type: "boolean",
        help: "stop recovery as soon as the backup is consistent",
      },
      {
        name: "tablespace",
        type: "string",
        placeholder: "NAME=DIR",
        multiple: true,
        help: "restore this tablespace into another directory",
      },
      {
        name: "owner",
        type: "string",
        placeholder: "UID:GID",
        help: "owner of the restored files; only root can ask for it",
      },
    ],
    positionals: [{
      name: "DIRECTORY",
      help: "the new data directory; must be empty or not exist",
    }],
    sections: CLIENT,
    examples: [
      "klio restore /var/lib/postgresql/restored --config client.yaml",
      "klio restore /var/lib/postgresql/restored --config client.yaml --target-time 2026-01-02T03:04:05Z",
    ],
    load: () => import("./commands/restore.ts"),
  },
  {
    command: "dev certs",
    summary: "create a CA, server and client certificates for local use",
    description:
      "Writes ca.crt, server.crt, server.key, client.crt and client.key. For a laptop and for tests: the keys are not protected beyond " +
      "their file permissions. In Kubernetes use cert-manager. Existing files are never overwritten.",
    flags: [
      {
        name: "dir",
        type: "string",
        placeholder: "DIR",
        help: "directory to write to; created when missing (required)",
      },
      {
        name: "cluster",
        type: "string",
        placeholder: "NAME",
        help: "cluster name of the client certificate (required)",
      },
      {
        name: "user",
        type: "string",
        placeholder: "NAME",
        help: "user of the client certificate (default klio)",
      },
      {
        name: "host",
        type: "string",
        placeholder: "NAME",
        multiple: true,
        help: "name or address of the server, besides localhost",
      },
      { name: "days", type: "string", placeholder: "N", help: "validity in days (default 365)" },
    ],
    positionals: [],
    sections: [],
    examples: ["klio dev certs --dir ./certs --cluster cluster-example"],
    load: () => import("./commands/dev_certs.ts"),
  },
  {
    command: "demo",
    summary: "show the whole job on a real PostgreSQL, in a temporary directory",
    description:
      "Starts a PostgreSQL (the installed one, else one from npm), a Klio server and a WAL streamer; takes a base backup under load; " +
      "drops a table and restores to the moment before; kills primary and streamer and restores to the last acknowledged commit. " +
      "Needs neither root nor Kubernetes and leaves nothing behind.",
    flags: [
      {
        name: "json",
        type: "boolean",
        help: "print the result as one JSON object on the last line",
      },
      { name: "keep", type: "boolean", help: "keep the temporary directory and print its path" },
    ],
    positionals: [],
    sections: [],
    examples: ["klio demo", "klio demo --json"],
    load: () => import("./commands/demo.ts"),
  },
];

/** Options that every command accepts. */
export const COMMON_FLAGS: readonly Flag[] = [
  {
    name: "config",
    type: "string",
    placeholder: "FILE",
    help: "YAML configuration file (also KLIO_CONFIG)",
  },
  { name: "help", type: "boolean", help: "show this help" },
];
