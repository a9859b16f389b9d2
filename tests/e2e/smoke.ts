/**
 * What any klio must do, run from sources or as the compiled binary: say its version, help, refuse what it does not know with the
 * documented code, and do one real piece of work. It takes the command line to run, and knows nothing of how it was made.
 *
 * @module
 */

import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import manifest from "../../deno.json" with { type: "json" };
import { FAILURES } from "../../src/base/failure.ts";

/** One proof; throws when it fails. */
export interface SmokeStep {
  readonly name: string;
  readonly run: (command: readonly string[]) => Promise<void>;
}

/** A run that takes longer hangs: a binary without its payload opens a prompt, for example. */
const TIMEOUT_MS = 60_000;

async function klio(command: readonly string[], words: readonly string[]): Promise<{
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}> {
  const [program = "", ...args] = command;
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), TIMEOUT_MS);
  try {
    const { code, stdout, stderr } = await new Deno.Command(program, {
      args: [...args, ...words],
      stdin: "null",
      signal: controller.signal,
      env: { NO_COLOR: "1" },
    }).output();
    const decoder = new TextDecoder();
    return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  } finally {
    clearTimeout(timer);
  }
}

/** The text that `--version` prints. Throws when it is not klio that answers. */
export async function versionOf(command: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await klio(command, ["--version"]);
  const said = `${stdout}${stderr}`.split("\n", 1)[0];
  const ok = code === 0 && stdout.startsWith(`klio ${manifest.version} `);
  assert.ok(ok, `--version ended with code ${code} and "${said}", wanted klio ${manifest.version}`);
  return stdout.trim();
}

/** The steps, in order of what they need. */
export const SMOKE_STEPS: readonly SmokeStep[] = [
  {
    name: "--version answers klio and its version",
    run: async (command) => {
      await versionOf(command);
    },
  },
  {
    name: "--help lists commands on standard output",
    run: async (command) => {
      const { code, stdout } = await klio(command, ["--help"]);
      assert.equal(code, 0);
      for (const word of ["server", "stream-wal", "backup", "restore", "dev"]) {
        assert.ok(stdout.includes(word), `--help does not mention ${word}:\n${stdout}`);
      }
    },
  },
  {
    name: "every command explains itself",
    run: async (command) => {
      const { code, stdout } = await klio(command, ["dev", "certs", "--help"]);
      assert.equal(code, 0);
      assert.ok(stdout.includes("--cluster"), stdout);
    },
  },
  {
    name: "an unknown command is refused with the documented code",
    run: async (command) => {
      const { code, stdout, stderr } = await klio(command, ["no-such-command"]);
      assert.equal(code, FAILURES.usage.exit, stderr);
      assert.ok(stderr.includes("no-such-command"), stderr);
      assert.equal(stdout, "");
    },
  },
  {
    name: "dev certs creates a CA and certificates that it signed",
    run: async (command) => {
      const folder = await Deno.makeTempDir({ prefix: "klio-smoke-" });
      try {
        const { code, stderr } = await klio(command, [
          ...["dev", "certs", "--dir", folder, "--cluster", "smoke"],
        ]);
        assert.equal(code, 0, stderr);
        const certificates: X509Certificate[] = [];
        for (const path of await pemFiles(folder)) {
          const text = await Deno.readTextFile(path);
          if (text.includes("BEGIN CERTIFICATE")) certificates.push(new X509Certificate(text));
        }
        const authority = certificates.find((certificate) => certificate.ca);
        assert.ok(authority !== undefined, `no CA among ${certificates.length} certificates`);
        const leaves = certificates.filter((certificate) => !certificate.ca);
        assert.ok(leaves.length >= 2, `${leaves.length} leaves`);
        for (const leaf of leaves) assert.ok(leaf.verify(authority.publicKey), leaf.subject);
        assert.ok(leaves.some((leaf) => /^CN=\S+@smoke$/m.test(leaf.subject)), "client identity");
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  },
];

async function pemFiles(folder: string): Promise<string[]> {
  const paths: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) paths.push(...await pemFiles(`${folder}/${name}`));
    else paths.push(`${folder}/${name}`);
  }
  return paths;
}
