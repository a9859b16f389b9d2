/**
 * Stock kopia as the judge of a repository that klio wrote: it opens it, reads every byte, and restores the same files.
 *
 * @module
 */

import assert from "node:assert/strict";

/** What is judged. */
export interface Judgement {
  /** Stock kopia. */
  readonly kopia: string;
  /** Holds `encryption.key` and `server/base`; a directory `kopia` is made in it. */
  readonly directory: string;
  /** A data directory that klio restored from the only backup and nobody has started yet. */
  readonly restored: string;
  /** Contents of the parts of that backup, sorted. */
  readonly parts: readonly string[];
}

/** Opens the repository, verifies every byte of it, restores the data directory, and compares with klio's. */
export async function judgeByKopia(
  { kopia, directory, parts, restored }: Judgement,
): Promise<void> {
  const home = `${directory}/kopia`;
  await Deno.mkdir(home);
  const [password = ""] = (await Deno.readTextFile(`${directory}/encryption.key`)).split(
    "\n",
  );
  const call = (...args: string[]) => runKopia(kopia, home, password, args);
  await call(
    "repository",
    "connect",
    "filesystem",
    `--path=${directory}/server/base`,
    "--readonly",
  );
  await call("snapshot", "verify", "--verify-files-percent=100");
  await call("content", "verify", "--full");
  const snapshots: { id: string; tags: Record<string, string> }[] = JSON.parse(
    await call("snapshot", "list", "--all", "--json"),
  );
  assert.deepEqual(
    snapshots.map((s) => s.tags["tag:klio.io/content"]).toSorted(),
    parts,
  );
  const pgdata = snapshots.find((s) => s.tags["tag:klio.io/content"] === "pgdata");
  await call("restore", pgdata?.id ?? "", `${home}/pgdata`);
  const theirs = await fingerprint(`${home}/pgdata`);
  const ours = await fingerprint(restored);
  // The link of the tablespace was sent elsewhere on purpose.
  const same = (map: Map<string, string>) =>
    new Map(
      [...map].filter(([name]) =>
        !ADDED.has(name) && !name.startsWith("/pg_tblspc/") && !name.startsWith("/pg_wal/")
      ).toSorted(),
    );
  assert.deepEqual(same(ours), same(theirs));
}

/** Files that klio adds to, or leaves out of, what is in the pgdata snapshot. */
const ADDED = new Set([
  "/backup_label",
  "/tablespace_map",
  "/recovery.signal",
  "/postgresql.auto.conf",
  "/global/pg_control",
]);

/** Everything in a tree: path, kind, permissions, and content as a digest or link target. */
async function fingerprint(root: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const walk = async (path: string, name: string): Promise<void> => {
    const info = await Deno.lstat(path);
    const mode = ((info.mode ?? 0) & 0o7777).toString(8);
    if (info.isSymlink) found.set(name, `link ${await Deno.readLink(path)}`);
    else if (info.isFile) {
      const digest = new Uint8Array(
        await crypto.subtle.digest("SHA-256", await Deno.readFile(path)),
      );
      found.set(name, `file ${mode} ${info.size} ${digest.toHex()}`);
    } else {
      found.set(name, `directory ${mode}`);
      for await (const entry of Deno.readDir(path)) {
        await walk(`${path}/${entry.name}`, `${name}/${entry.name}`);
      }
    }
  };
  await walk(root, "");
  return found;
}

async function runKopia(
  kopia: string,
  home: string,
  password: string,
  args: readonly string[],
): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(kopia, {
    args: [...args, `--config-file=${home}/kopia.config`, "--no-progress"],
    env: {
      HOME: home,
      KOPIA_PASSWORD: password,
      KOPIA_CHECK_FOR_UPDATES: "false",
      KOPIA_CACHE_DIRECTORY: `${home}/cache`,
      KOPIA_LOG_DIR: `${home}/logs`,
    },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  assert.equal(code, 0, `kopia ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}
