/**
 * Makes klio runnable by the user that PostgreSQL runs as. Only root needs this: PostgreSQL drops to another user, calls
 * klio through restore_command, and that user may not be allowed to read where klio lies (a home directory, say). Then a
 * copy is put under the demo's own directory, and all roles of the demo run from it.
 *
 * @module
 */

import { dirname } from "node:path";
import { AppError } from "../../base/failure.ts";
import type { Waiting } from "../../base/abort.ts";
import { type OwnCommand, ownCommand } from "../../adapters/process/self.ts";
import type { Account } from "../../adapters/postgres/local_cluster.ts";

/** Top-level entries that klio needs to run from sources. */
const SOURCES = ["main.ts", "src", "node_modules"] as const;

async function canRun(command: OwnCommand, account: Account, options: Waiting): Promise<boolean> {
  try {
    const { success } = await new Deno.Command(command.program, {
      args: [...command.args, "--version"],
      uid: account.uid,
      gid: account.gid,
      cwd: "/",
      clearEnv: true,
      env: { PATH: "/usr/bin:/bin", ...command.env },
      stdin: "null",
      stdout: "null",
      stderr: "null",
      signal: options.signal,
    }).output();
    return success;
  } catch (error) {
    // The program itself cannot be read or executed by that user.
    if (error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotFound) {
      return false;
    }
    throw error;
  }
}

async function copyTree(from: string, to: string, options: Waiting): Promise<void> {
  const { success, stderr } = await new Deno.Command("cp", {
    args: ["-R", "-P", "-p", from, to],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    signal: options.signal,
  }).output();
  if (!success) {
    throw new AppError(
      "repository",
      `Copy "${from}" to "${to}": ${new TextDecoder().decode(stderr).trim()}`,
    );
  }
}

async function stageSources(
  deno: string,
  main: string,
  directory: string,
  options: Waiting,
): Promise<OwnCommand> {
  const root = dirname(main);
  const app = `${directory}/app`;
  await Deno.mkdir(app, { recursive: true, mode: 0o755 });
  for (const entry of SOURCES) await copyTree(`${root}/${entry}`, `${app}/${entry}`, options);
  const manifest: Record<string, unknown> = JSON.parse(
    await Deno.readTextFile(`${root}/deno.json`),
  );
  // The copy is complete: nothing is to be resolved, locked or downloaded again.
  await Deno.writeTextFile(
    `${app}/deno.json`,
    JSON.stringify({ ...manifest, nodeModulesDir: "manual", lock: false }),
  );
  await copyTree(deno, `${directory}/deno`, options);
  const cache = `${directory}/deno-cache`;
  await Deno.mkdir(cache, { mode: 0o777 });
  await Deno.chmod(cache, 0o777); // whatever the umask
  return {
    program: `${directory}/deno`,
    args: ["run", "--quiet", "--allow-all", `${app}/main.ts`],
    env: { DENO_DIR: cache },
  };
}

/** `command` as it is when `account` can run it (or nobody else must), else the command line of a copy in `directory`. */
export async function stageForAccount(
  account: Account | undefined,
  directory: string,
  options: Waiting,
  command: OwnCommand = ownCommand(),
): Promise<OwnCommand> {
  if (account === undefined || await canRun(command, account, options)) return command;
  await Deno.mkdir(directory, { recursive: true, mode: 0o755 });
  let staged: OwnCommand;
  const main = command.args.at(-1);
  if (main === undefined) {
    await copyTree(command.program, `${directory}/klio`, options);
    staged = { program: `${directory}/klio`, args: [], env: {} };
  } else staged = await stageSources(command.program, main, directory, options);
  if (!await canRun(staged, account, options)) {
    throw new AppError(
      "permission",
      `Run klio as user "${account.name}": the copy in "${directory}" does not start`,
      {
        hint: "run the demo as an ordinary user",
      },
    );
  }
  return staged;
}
