/**
 * The README against the program: its exit codes, tasks and commands are those that exist.
 *
 * @module
 */

import assert from "node:assert/strict";
import { COMMANDS } from "../src/cli/commands.ts";
import { exitCodes } from "../src/cli/help.ts";
import { parseYaml } from "../src/cli/yaml.ts";
import { loadConfig } from "../src/cli/config.ts";
import manifest from "../deno.json" with { type: "json" };

const README = await Deno.readTextFile(new URL("../README.md", import.meta.url));

function section(title: string): string {
  const start = README.indexOf(`## ${title}\n`);
  assert.ok(start >= 0, title);
  const end = README.indexOf("\n## ", start + 1);
  return README.slice(start, end < 0 ? undefined : end);
}

/** First cells and the rest of a Markdown table's rows. */
function rows(text: string): readonly (readonly string[])[] {
  return text.split("\n").filter((line) => /^\| (?!code|task|---)/.test(line)).map((line) =>
    line.split("|").slice(1, -1).map((cell) => cell.trim())
  );
}

Deno.test("the README lists every exit code with its meaning", () => {
  assert.deepEqual(
    rows(section("Exit codes")),
    exitCodes().map(([code, text]) => [String(code), text]),
  );
});

Deno.test("the README names only tasks that exist", () => {
  const tasks = Object.keys(manifest.tasks);
  for (const [name = ""] of rows(section("Work on it"))) {
    assert.ok(tasks.includes(name.replaceAll("`", "")), name);
  }
  for (const [, name = ""] of README.matchAll(/deno@[\d.]+ task ([a-z]+)/g)) {
    assert.ok(tasks.includes(name), name);
  }
});

Deno.test("the README shows only commands and options that exist", () => {
  const blocks = [...README.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, text = ""]) => text).join(
    "",
  );
  const shown = [...blocks.matchAll(/^klio ([^#\n]*)/gm)]
    .map(([, words = ""]) => words.trim().split(/\s+/));
  assert.ok(shown.length >= 6);
  for (const words of shown) {
    const command = COMMANDS.find((c) =>
      c.command.split(" ").every((word, i) => words[i] === word)
    );
    assert.ok(command !== undefined, words.join(" "));
    const known = new Set([...command.flags.map((f) => `--${f.name}`), "--config"]);
    for (const word of words.filter((w) => w.startsWith("--"))) {
      assert.ok(known.has(word), `${command.command} ${word}`);
    }
  }
});

Deno.test("the configuration files in the README are valid", async () => {
  const files = [...README.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, text = ""]) => text);
  assert.equal(files.length, 2);
  const load = (text: string) => ({
    flag: () => undefined,
    env: () => undefined,
    file: "README.md",
    readTextFile: () => Promise.resolve(text),
  });
  for (const text of files) assert.ok(parseYaml(text, "README.md"));
  await loadConfig(["tls", "tier1", "tier1.base", "tier1.wal"], load(files[0] ?? ""));
  await loadConfig(["source", "client", "client.base", "client.wal"], load(files[1] ?? ""));
});
