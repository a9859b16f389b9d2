/**
 * The map of the house: which folder may import which, with the reason a reader gets when an arrow points the wrong way,
 * and which folder wraps which npm package. The lint plugin applies it to single imports; `tests/layers_test.ts` applies it to
 * the whole graph, cycles included. Pure functions over repository paths (`src/base/abort.ts`), separated by `/`.
 *
 * @module
 */

/** What a layer may reach, and why not more. */
interface Layer {
  readonly imports: readonly string[];
  /** Built-in modules of Node; `*` is all of them. */
  readonly builtins: readonly string[];
  readonly reason: string;
}

/** Layers by folder of `src`. A layer may always import itself, see {@link refuseImport} for features and adapters. */
export const LAYERS: Readonly<Record<string, Layer>> = {
  base: {
    imports: [],
    builtins: [],
    reason: "base is below everything and does no I/O",
  },
  domain: {
    imports: ["base"],
    builtins: [],
    reason: "domain holds values and pure functions",
  },
  codec: {
    imports: ["domain", "base"],
    builtins: ["node:buffer", "node:crypto", "node:zlib"],
    reason: "codec turns bytes into values and opens nothing",
  },
  ports: {
    imports: ["domain", "base"],
    builtins: [],
    reason: "ports are contracts without an implementation",
  },
  features: {
    imports: ["ports", "codec", "domain", "base"],
    builtins: [],
    reason: "features reach the world only through ports, so that a test and a seed own it",
  },
  adapters: {
    imports: ["ports", "codec", "domain", "base"],
    builtins: ["*"],
    reason: "adapters translate between the world and a port and decide nothing",
  },
  rpc: {
    imports: ["features", "ports", "codec", "domain", "base"],
    builtins: [],
    reason: "rpc translates requests into calls of features",
  },
  cli: {
    imports: ["rpc", "features", "adapters", "ports", "codec", "domain", "base"],
    builtins: ["*"],
    reason: "cli wires everything and is imported by nobody",
  },
};

/** npm package → places (folder, or file without `.ts`) that wrap it. Everywhere else it is a leak of a vendor. */
export const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  "@grpc/grpc-js": ["src/adapters/grpc", "src/rpc"],
  "pg": ["src/adapters/postgres"],
  "yaml": ["src/cli/yaml"],
  "zod": ["src/cli/settings", "src/codec"],
};

/** Path of an imported module inside the repository, its package name, or a `node:` specifier. */
export type ImportTarget =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "package"; readonly name: string }
  | { readonly kind: "builtin"; readonly name: string }
  | { readonly kind: "remote"; readonly specifier: string };

/** What `specifier`, written in the file `from`, means. */
export function importTarget(from: string, specifier: string): ImportTarget {
  if (specifier.startsWith("node:")) return { kind: "builtin", name: specifier };
  if (specifier.startsWith(".") || specifier.startsWith("/")) {
    const path = new URL(specifier, `file:///${from}`).pathname.slice(1);
    return { kind: "file", path };
  }
  const bare = specifier.replace(/^npm:\/?/, "");
  if (/^[a-z]+:/.test(bare)) return { kind: "remote", specifier };
  const parts = bare.split("/");
  const last = bare.startsWith("@") ? 2 : 1;
  const name = parts.slice(0, last).join("/").replace(/(.)@.*$/, "$1");
  return { kind: "package", name };
}

/** True for `folder` itself, a file in it, or the file `folder.ts`. */
export function isWithin(path: string, folder: string): boolean {
  return path === `${folder}.ts` || path.startsWith(`${folder}/`);
}

/** True for files whose place in the house is the test bench: they may import support code and any package. */
export function isTestFile(path: string): boolean {
  return path.startsWith("tests/") || /_(?:test|bench)\.ts$/.test(path);
}

/** `walstream` of `src/features/walstream/mod.ts`: the room of a feature or an adapter. */
function roomOf(path: string): string {
  return (path.split("/")[2] ?? "").replace(/\.ts$/, "");
}

/** Why `from` must not import `target`; undefined when it may. Both are seen from the root of the repository. */
export function refuseImport(from: string, target: ImportTarget): string | undefined {
  if (target.kind === "remote") return "only npm packages and node: built-ins can be had";
  if (from === "main.ts") {
    const ofCli = target.kind === "file" && target.path.startsWith("src/cli/");
    return ofCli ? undefined : "main.ts only starts src/cli";
  }
  if (!from.startsWith("src/")) return undefined;
  const own = from.split("/")[1] ?? "";
  const layer = LAYERS[own];
  if (layer === undefined) return `src/${own} is not a layer of the house`;
  switch (target.kind) {
    case "builtin": {
      if (isTestFile(from)) return undefined;
      if (/^node:timers\b/.test(target.name)) return "time comes from the injected Clock";
      const allowed = layer.builtins.includes("*") || layer.builtins.includes(target.name);
      return allowed ? undefined : layer.reason;
    }
    case "package": {
      if (isTestFile(from)) return undefined;
      const places = PACKAGES[target.name];
      if (places === undefined) return `no place is assigned to "${target.name}" in PACKAGES`;
      return places.some((place) => isWithin(from, place))
        ? undefined
        : `"${target.name}" is wrapped in ${places.join(" and ")}`;
    }
    case "file":
      return refuseFile(from, target.path, own, layer);
  }
}

function refuseFile(from: string, to: string, own: string, layer: Layer): string | undefined {
  if (isTestFile(from) && isTestFile(to)) return undefined;
  if (own === "cli" && to === "deno.json") return undefined; // the version is written there once
  if (!to.startsWith("src/")) return "nothing in src imports from outside src";
  if (isTestFile(to)) return "shipped code does not import tests";
  const other = to.split("/")[1] ?? "";
  if (other === own) {
    if (roomOf(from) === roomOf(to)) return undefined;
    if (own === "adapters") return "adapters do not import one another: join them in cli";
    if (own === "features" && !to.endsWith("/mod.ts")) {
      return "a feature is entered through its mod.ts";
    }
    return undefined;
  }
  if (!layer.imports.includes(other)) return layer.reason;
  if (other === "features" && own === "rpc" && !to.endsWith("/mod.ts")) {
    return "a feature is entered through its mod.ts";
  }
  return undefined;
}
