/**
 * The whole module graph, as `deno info` sees it from `main.ts`: no import cycle, no arrow against the layers (the lint plugin
 * looks at the same table, file by file), and no module of `src` that nothing reaches.
 *
 * @module
 */

import assert from "node:assert/strict";
import { importTarget, isTestFile, refuseImport } from "../tools/lint/layers.ts";

const ROOT = new URL("../", import.meta.url).href;

/** A module by its path in the repository, with the imports that remain at run time and those of types only. */
interface Module {
  readonly path: string;
  readonly runtime: readonly string[];
  readonly imports: readonly string[];
}

interface InfoModule {
  readonly specifier: string;
  readonly error?: string;
  readonly dependencies?: ReadonlyArray<{
    readonly specifier: string;
    readonly code?: { readonly specifier?: string };
  }>;
}

async function readGraph(): Promise<readonly Module[]> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", "main.ts"],
    cwd: new URL(ROOT),
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  const info: { modules: readonly InfoModule[] } = JSON.parse(new TextDecoder().decode(stdout));
  const broken = info.modules.filter((module) => module.error !== undefined);
  assert.deepEqual(broken.map((module) => module.error), []);
  return info.modules.filter((module) => module.specifier.startsWith(ROOT)).map((module) => {
    const dependencies = module.dependencies ?? [];
    return {
      path: module.specifier.slice(ROOT.length),
      runtime: dependencies.flatMap(({ code }) =>
        code?.specifier?.startsWith(ROOT) ? [code.specifier.slice(ROOT.length)] : []
      ),
      imports: dependencies.map((dependency) => dependency.specifier),
    };
  });
}

/** The modules of one cycle in order, or undefined. */
function findCycle(modules: readonly Module[]): readonly string[] | undefined {
  const importsOf = new Map(modules.map(({ path, runtime }) => [path, runtime]));
  const done = new Set<string>();
  const visit = (path: string, above: readonly string[]): readonly string[] | undefined => {
    const index = above.indexOf(path);
    if (index !== -1) return [...above.slice(index), path];
    if (done.has(path)) return undefined;
    for (const next of importsOf.get(path) ?? []) {
      const cycle = visit(next, [...above, path]);
      if (cycle !== undefined) return cycle;
    }
    done.add(path);
    return undefined;
  };
  for (const { path } of modules) {
    const cycle = visit(path, []);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

async function* shippedModules(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(new URL(folder, ROOT))) {
    if (isDirectory) yield* shippedModules(`${folder}${name}/`);
    else if (name.endsWith(".ts") && !isTestFile(`${folder}${name}`)) yield `${folder}${name}`;
  }
}

Deno.test("findCycle() sees a circle and nothing else", () => {
  const module = (path: string, ...runtime: string[]): Module => ({ path, runtime, imports: [] });
  const tree = [module("a", "b", "c"), module("b", "d"), module("c", "d"), module("d")];
  assert.equal(findCycle(tree), undefined);
  assert.deepEqual(findCycle([module("a", "b"), module("b", "c"), module("c", "b")]), [
    "b",
    "c",
    "b",
  ]);
  assert.deepEqual(findCycle([module("a", "a")]), ["a", "a"]);
});

Deno.test("the module graph has no cycle, keeps to the layers and leaves no module of src out", async () => {
  const modules = await readGraph();
  assert.equal(findCycle(modules), undefined, "modules import each other in a circle");
  const refused = modules.flatMap(({ path, imports }) =>
    imports.flatMap((specifier) => {
      const refusal = refuseImport(path, importTarget(path, specifier));
      return refusal === undefined ? [] : [`${path} imports ${specifier}: ${refusal}`];
    })
  );
  assert.deepEqual(refused, []);
  const reached = new Set(modules.map(({ path }) => path));
  const dead: string[] = [];
  for await (const path of shippedModules("src/")) if (!reached.has(path)) dead.push(path);
  assert.deepEqual(dead, [], "nothing that main.ts starts imports these modules");
});
