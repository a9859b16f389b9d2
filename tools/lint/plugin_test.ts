/**
 * The lint plugin against good and bad snippets: a rule that never reports is worse than none.
 *
 * @module
 */

import assert from "node:assert/strict";
import plugin from "./plugin.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** What the plugin says about `source` in the file `path`: `rule: message`. */
function lint(path: string, source: string): string[] {
  return Deno.lint.runPlugin(plugin, `${ROOT}${path}`, source)
    .map((diagnostic) => `${diagnostic.id}: ${diagnostic.message}`);
}

/** Expects exactly one diagnostic, of this rule and holding `text`. */
function refused(rule: string, text: string, path: string, source: string): void {
  const found = lint(path, source);
  assert.equal(found.length, 1, `${path} with ${source} gave ${JSON.stringify(found)}`);
  const [message = ""] = found;
  assert.ok(message.startsWith(`klio/${rule}: `) && message.includes(text), message);
}

function accepted(path: string, source: string): void {
  assert.deepEqual(lint(path, source), [], `${path} with ${source}`);
}

Deno.test("layers: every arrow of the house is accepted", () => {
  accepted("src/domain/lsn.ts", `import { assert } from "../base/assert.ts";`);
  accepted("src/codec/pgwire/reader.ts", `import type { Lsn } from "../../domain/lsn.ts";`);
  accepted("src/codec/kopia/aead.ts", `import { hkdfSync } from "node:crypto";`);
  accepted("src/ports/files.ts", `import type { Waiting } from "../base/abort.ts";`);
  accepted("src/features/backup/mod.ts", `import type { Files } from "../../ports/files.ts";`);
  accepted("src/features/backup/run.ts", `import { restore } from "../restore/mod.ts";`);
  accepted("src/features/backup/run.ts", `import { walk } from "./walk.ts";`);
  accepted("src/adapters/grpc/client.ts", `import * as grpc from "@grpc/grpc-js";`);
  accepted("src/adapters/localfs/files.ts", `import { open } from "node:fs/promises";`);
  accepted("src/rpc/wal.ts", `import { serve } from "../features/walserver/mod.ts";`);
  accepted("src/cli/main.ts", `import { LocalFiles } from "../adapters/localfs/mod.ts";`);
  accepted("src/cli/settings.ts", `import { z } from "zod";`);
  accepted("src/cli/yaml.ts", `import { parse } from "yaml";`);
  accepted("src/cli/version.ts", `import deno from "../../deno.json" with { type: "json" };`);
  accepted("main.ts", `import { main } from "./src/cli/main.ts";`);
  accepted("tests/integration/all_test.ts", `import { x } from "../../src/cli/main.ts";`);
});

Deno.test("layers: an arrow that points upwards is refused with the reason", () => {
  const upwards = [
    ["src/base/retry.ts", "../domain/lsn.ts", "base is below everything"],
    ["src/domain/lsn.ts", "../codec/pgwire/reader.ts", "values and pure functions"],
    ["src/codec/tar/tar.ts", "../../ports/files.ts", "opens nothing"],
    ["src/ports/files.ts", "../codec/tar/tar.ts", "contracts"],
    ["src/features/backup/mod.ts", "../../adapters/localfs/mod.ts", "only through ports"],
    ["src/adapters/localfs/mod.ts", "../../features/backup/mod.ts", "decide nothing"],
    ["src/adapters/localfs/mod.ts", "../postgres/mod.ts", "join them in cli"],
    ["src/rpc/wal.ts", "../adapters/localfs/mod.ts", "rpc translates"],
    ["src/rpc/wal.ts", "../features/walserver/archive.ts", "entered through its mod.ts"],
    ["src/features/backup/run.ts", "../restore/plan.ts", "entered through its mod.ts"],
    ["src/rpc/wal.ts", "../cli/main.ts", "rpc translates"],
    ["src/features/backup/run.ts", "../../../tests/support/fake_clock.ts", "outside src"],
    ["src/features/backup/run.ts", "./run_test.ts", "does not import tests"],
    ["src/other/x.ts", "../base/abort.ts", "not a layer"],
    ["main.ts", "./src/base/abort.ts", "only starts src/cli"],
  ] as const;
  for (const [from, specifier, reason] of upwards) {
    refused("layers", reason, from, `import { x } from "${specifier}";`);
    refused("layers", reason, from, `import type { X } from "${specifier}";`);
    refused("layers", reason, from, `export { x } from "${specifier}";`);
    refused("layers", reason, from, `export * from "${specifier}";`);
    refused("layers", reason, from, `await import("${specifier}");`);
    refused("layers", reason, from, `type X = import("${specifier}").X;`);
  }
});

Deno.test("layers: a module name that is computed cannot be checked and is refused", () => {
  refused("layers", "must be a literal", "src/cli/main.ts", `await import(name);`);
});

Deno.test("layers: packages and built-ins stay where they are wrapped", () => {
  const leaks = [
    ["src/features/backup/mod.ts", "@grpc/grpc-js", "wrapped in src/adapters/grpc"],
    ["src/adapters/grpc/client.ts", "pg", "wrapped in src/adapters/postgres"],
    ["src/features/server/mod.ts", "zod", "wrapped in src/cli/settings"],
    ["src/cli/main.ts", "npm:yaml@2.9.1", "wrapped in src/cli/yaml"],
    ["src/base/bytes.ts", "left-pad", "no place is assigned"],
    ["src/base/bytes.ts", "fast-check", "no place is assigned"],
    ["src/features/backup/mod.ts", "node:fs", "only through ports"],
    ["src/codec/tar/tar.ts", "node:net", "opens nothing"],
    ["src/adapters/postgres/mod.ts", "node:timers/promises", "injected Clock"],
    ["src/base/bytes.ts", "jsr:@std/bytes", "only npm packages"],
    ["src/base/bytes.ts", "https://example.com/mod.ts", "only npm packages"],
  ] as const;
  for (const [from, specifier, reason] of leaks) {
    refused("layers", reason, from, `import x from "${specifier}";`);
  }
  accepted("src/base/bytes_test.ts", `import fc from "fast-check"; import a from "node:assert";`);
  accepted("src/features/x/y_test.ts", `import { F } from "../../../tests/support/fake_clock.ts";`);
});

Deno.test("globals: each is refused outside its one provider and accepted there", () => {
  const banned = [
    ["Date.now()", "src/adapters/process/clock.ts"],
    ["new Date()", "src/adapters/process/clock.ts"],
    ["Date()", "src/adapters/process/clock.ts"],
    ["performance.now()", "src/adapters/process/clock.ts"],
    ["setTimeout(f, 1)", "src/base/abort.ts"],
    ["setInterval(f, 1)", "src/adapters/process/clock.ts"],
    ["AbortSignal.timeout(1)", "src/base/abort.ts"],
    ["globalThis.setTimeout(f, 1)", "src/base/abort.ts"],
    ["Math.random()", "src/adapters/process/random.ts"],
    ["crypto.randomUUID()", "src/adapters/process/random.ts"],
    [`crypto["getRandomValues"](b)`, "src/adapters/process/random.ts"],
    [`Deno.env.get("X")`, "src/cli/config.ts"],
    ["Deno.exit(1)", "src/cli/exit.ts"],
    ["process.exit(1)", "src/cli/exit.ts"],
    ["console.log(1)", "src/cli/main.ts"],
  ] as const;
  for (const [source, provider] of banned) {
    refused("globals", "src/features/backup/mod.ts", "src/features/backup/mod.ts", source);
    refused("globals", "src/adapters/localfs/mod.ts", "src/adapters/localfs/mod.ts", source);
    accepted(provider, source);
    accepted("src/features/backup/mod_test.ts", source);
    accepted("tools/compile.ts", source);
  }
  refused("globals", "ports", "src/features/backup/mod.ts", `Deno.readFile("x")`);
  accepted("src/adapters/localfs/mod.ts", `Deno.readFile("x")`);
});

Deno.test("globals: a date from given numbers and names that only look alike are accepted", () => {
  accepted("src/features/backup/mod.ts", `new Date(ms).toISOString(); Date.UTC(2026, 0);`);
  accepted("src/features/backup/mod.ts", `clock.setTimeout(); crypto.subtle.digest("SHA-256", b);`);
});

Deno.test("public-types: what other modules call says what it returns", () => {
  for (
    const source of [
      "export function f(a: number) { return a; }",
      "export const f = (a: number) => a;",
      "export const f = function () { return 1; };",
      "export default function f() { return 1; }",
      "export class A { f() { return 1; } }",
      "export class A { get f() { return 1; } }",
    ]
  ) refused("public-types", "return type", "src/base/x.ts", source);
  for (
    const source of [
      "export function f(a: number): number { return a; }",
      "export const f = (a: number): number => a;",
      "export const f: F = (a) => a;",
      "export const f = { g: () => 1 } satisfies F;",
      "export class A { constructor() {} #f() { return 1; } set x(v: number) {} f(): void {} }",
      "function f() { return 1; } const g = () => 1; class B { f() { return 1; } }",
    ]
  ) accepted("src/base/x.ts", source);
  accepted("src/base/x_test.ts", "export const f = () => 1;");
});

Deno.test("hash-private: keywords private and protected are refused", () => {
  refused("hash-private", "#name", "src/base/x.ts", `class A { private x = 1; }`);
  refused("hash-private", "#name", "src/base/x.ts", `class A { protected f() {} }`);
  accepted("src/base/x.ts", `class A { private constructor() {} }`);
  accepted("src/base/x.ts", `class A { #x = 1; public y = 2; readonly z = 3; }`);
});

Deno.test("error-message: a final period is refused in every way to write one", () => {
  for (const text of [`"Open it."`, "`Open ${x}.`", `"Open " + "it."`]) {
    refused("error-message", "period", "src/base/x.ts", `throw new AppError("bug", ${text});`);
  }
  for (const text of [`"Open it"`, "`Open ${x}`", "`Open x.${y}`", "message"]) {
    accepted("src/base/x.ts", `throw new AppError("bug", ${text}, { hint: "Do it." });`);
  }
});
