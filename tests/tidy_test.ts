/**
 * The repository reads itself: rules that neither formatter nor linter can check, one function each, every one with a sample that it
 * must find. Files are all those of the tree that git would track: no `node_modules`, no `build`.
 *
 * @module
 */

import assert from "node:assert/strict";

const ROOT = new URL("../", import.meta.url);
const SELF = "tests/tidy_test.ts"; // holds a sample of every breach

const LINES_MAX = 400;
/** Tests are lists: length harms them less. */
const TEST_LINES_MAX = 600;
/**
 * Files above their maximum, with their length when they were let in; the header of each says why it is one thing.
 * A ratchet: none may grow, and an entry goes as soon as its file is short enough.
 */
const LONG_FILES: Readonly<Record<string, number>> = {};

interface File {
  readonly path: string;
  readonly text: string;
}

/** A rule: the breaches in one file, each as a few words. */
type Rule = (file: File) => readonly string[];

function matches(text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map((match) => {
    const line = text.slice(0, match.index).split("\n").length;
    return `line ${line}: ${match[0].trim()}`;
  });
}

const isCode = (path: string) => path.endsWith(".ts") && !path.startsWith("src/gen/");
const isTest = (path: string) => path.startsWith("tests/") || path.endsWith("_test.ts");
const NOTHING: readonly string[] = [];

/** What is made by tools and read by nobody. */
const isGenerated = (path: string) => path.endsWith("deno.lock") || path.startsWith("src/gen/");

const RULES = {
  length: ({ path, text }) => {
    if (!isCode(path)) return NOTHING;
    const lines = text.split("\n").length - 1;
    const limit = path.endsWith("_test.ts") ? TEST_LINES_MAX : LINES_MAX;
    const allowed = LONG_FILES[path];
    if (allowed === undefined) {
      return lines > limit ? [`${lines} lines, ${limit} are allowed`] : NOTHING;
    }
    if (lines <= limit) return ["is short now: remove it from LONG_FILES"];
    return lines > allowed ? [`grew from ${allowed} to ${lines} lines`] : NOTHING;
  },
  unfinished: ({ path, text }) =>
    isGenerated(path) ? NOTHING : matches(text, /\b(?:TODO|FIXME|XXX|HACK)\b/g),
  header: ({ path, text }) => {
    if (!isCode(path) || path.endsWith("_test.ts")) return NOTHING; // a test's names say it all
    const header = /^\/\*\*\n(?: \*.*\n)*? \* @module\n \*\/\n/.test(text);
    return header ? NOTHING : ["does not begin with a /** comment that ends in @module"];
  },
  machine: ({ path, text }) =>
    isGenerated(path)
      ? NOTHING
      : matches(text, /(?:^|[\s"'`(=:])\/(?:work|root|home\/[a-z]+|Users\/[a-z]+)\/[\w.]+/gm),
  registry: ({ text }) =>
    matches(text, /\b(?:registry\.npmjs\.org|npm\.jsr\.io|pypi\.org|proxy\.golang\.org)\b/g),
  skipped: ({ path, text }) =>
    isTest(path)
      ? matches(
        text,
        /\bDeno\.test\.(?:only|ignore)\b|\b(?:only|ignore): true\b|\bsanitize\w+: false\b|\bt\.skip\b/g,
      )
      : NOTHING,
  swallowed: ({ path, text }) =>
    isCode(path)
      ? matches(text, /\bcatch\s*(?:\([^)]*\)\s*)?\{\s*\}|\.catch\(\(\w*\)\s*=>\s*\{\s*\}\)/g)
      : NOTHING,
  empty: ({ path, text }) => {
    const runs = !path.endsWith("_test.ts") || /\bDeno\.test\(|^test\w+\(/m.test(text);
    return runs ? NOTHING : ["is named like a test and tests nothing"];
  },
  pinned: ({ path, text }) => {
    if (!path.endsWith("deno.json")) return NOTHING;
    const { imports = {} }: { imports?: Record<string, string> } = JSON.parse(text);
    return Object.values(imports).filter((target) => !/^npm:@?[^@]+@\d+\.\d+\.\d+$/.test(target));
  },
  locked: ({ path, text }) =>
    path.endsWith("deno.lock") ? matches(text, /https?:\/\/\S+/g) : NOTHING,
} as const satisfies Record<string, Rule>;

const SAMPLES: Readonly<Record<keyof typeof RULES, readonly File[]>> = {
  length: [
    { path: "src/base/a.ts", text: "x\n".repeat(LINES_MAX + 1) },
    { path: "src/base/a_test.ts", text: "x\n".repeat(TEST_LINES_MAX + 1) },
  ],
  unfinished: [
    { path: "src/base/a.ts", text: "// TODO: later" },
    { path: "README.md", text: "FIXME" },
  ],
  header: [
    { path: "src/base/a.ts", text: "export const a = 1;\n" },
    { path: "tests/a.ts", text: "/** A comment. */\n" },
    { path: "main.ts", text: "import './a.ts';\n/**\n * Late.\n *\n * @module\n */\n" },
  ],
  machine: [
    { path: "src/base/a.ts", text: `const x = "/work/of-mine/src";` },
    { path: "README.md", text: "run (/root/bin/x)" },
    { path: ".ci/run", text: "cd /home/somebody/x" },
  ],
  registry: [{ path: "README.md", text: "from https://registry.npmjs.org/x" }],
  skipped: [
    { path: "src/base/a_test.ts", text: "Deno.test.only(" },
    { path: "tests/a_test.ts", text: "Deno.test({ ignore: true, fn })" },
    { path: "tests/a_test.ts", text: "Deno.test({ sanitizeOps: false, fn })" },
  ],
  swallowed: [
    { path: "src/base/a.ts", text: "try { f(); } catch {}" },
    { path: "src/base/a.ts", text: "try { f(); } catch (error) {\n}" },
    { path: "tests/a.ts", text: "await f().catch(() => {});" },
  ],
  empty: [{ path: "src/base/a_test.ts", text: "export const nothing = 1;" }],
  pinned: [
    { path: "deno.json", text: `{ "imports": { "pg": "npm:pg@^8.0.0" } }` },
    { path: "tools/x/deno.json", text: `{ "imports": { "@a/b": "npm:@a/b" } }` },
  ],
  locked: [{ path: "deno.lock", text: `"tarball": "https://example.com/x.tgz"` }],
};

const SKIPPED_FOLDERS = new Set([".git", "node_modules", "build"]);
const BINARY = /\.(?:bin|zst|gz|f|png|wal|partial)$/;

async function* trackedFiles(folder = ""): AsyncGenerator<File> {
  for await (const { name, isDirectory, isFile } of Deno.readDir(new URL(folder || ".", ROOT))) {
    const path = folder + name;
    if (isDirectory && !SKIPPED_FOLDERS.has(name)) yield* trackedFiles(`${path}/`);
    else if (isFile && path !== SELF && !BINARY.test(name)) {
      yield { path, text: await Deno.readTextFile(new URL(path, ROOT)) };
    }
  }
}

Deno.test("every rule finds each of its samples", () => {
  for (const [name, rule] of Object.entries(RULES)) {
    for (const sample of SAMPLES[name as keyof typeof RULES]) {
      assert.notEqual(rule(sample).length, 0, `${name} does not see ${JSON.stringify(sample)}`);
    }
  }
});

Deno.test("the repository is tidy", async () => {
  const breaches: string[] = [];
  const paths = new Set<string>();
  const { imports } = JSON.parse(await Deno.readTextFile(new URL("deno.json", ROOT)));
  const unused = new Set(Object.keys(imports));
  for await (const file of trackedFiles()) {
    paths.add(file.path);
    for (const [, name = ""] of file.text.matchAll(/(?:from|import)[ (]"([^"./]?[^"]+)"/g)) {
      for (const known of unused) {
        if (name === known || name.startsWith(`${known}/`)) unused.delete(known);
      }
    }
    for (const [name, rule] of Object.entries(RULES)) {
      for (const breach of rule(file)) breaches.push(`${file.path}: ${name}: ${breach}`);
    }
  }
  assert.ok(paths.has("main.ts") && paths.has("deno.lock"), "the walk found the repository");
  for (const path of Object.keys(LONG_FILES)) {
    if (!paths.has(path)) breaches.push(`${path}: length: is gone: remove it from LONG_FILES`);
  }
  for (const name of unused) breaches.push(`deno.json: nothing imports "${name}"`);
  assert.deepEqual(breaches, []);
});
