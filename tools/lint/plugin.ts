/**
 * Our `deno lint` plugin: the rules of the house that no general linter knows. Layers and wrapped packages
 * (`layers.ts`), globals that only one place may touch, declared types of what is exported, `#private` members, the
 * shape of error messages. It looks at one file at a time and needs no types. Named in `deno.json` under `lint.plugins`.
 *
 * @module
 */

import { importTarget, isTestFile, isWithin, refuseImport } from "./layers.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** Path of the file being linted inside the repository. */
function repositoryPath(context: Deno.lint.RuleContext): string {
  const name = context.filename.replace(/^file:\/\//, "");
  return name.startsWith(ROOT) ? name.slice(ROOT.length) : name;
}

/** A global, the places that may use it, and what everybody else does. */
interface Ban {
  readonly places: readonly string[];
  readonly instead: string;
}

const CLOCK: Ban = {
  places: ["src/cli", "src/adapters/process"],
  instead: "time is injected: use Clock",
};
const TIMER: Ban = {
  places: ["src/cli", "src/adapters/process", "src/base/abort"],
  instead: "timers are injected: use Clock.sleep, or deadline() of base/abort.ts",
};
const RANDOM: Ban = {
  places: ["src/cli", "src/adapters/process"],
  instead: "randomness is injected: use Random",
};
const PROCESS: Ban = {
  places: ["src/cli", "src/adapters/process"],
  instead: "settings are read and the process is ended in cli",
};
const CONSOLE: Ban = {
  places: ["src/cli", "src/adapters/process"],
  instead: "say it through the injected Logger",
};

const BANNED_CALLS: Readonly<Record<string, Ban>> = {
  Date: CLOCK,
  setTimeout: TIMER,
  setInterval: TIMER,
};

/** `object.property`, `object.*` for all of them. */
const BANNED_MEMBERS: Readonly<Record<string, Ban>> = {
  "Date.now": CLOCK,
  "performance.now": CLOCK,
  "AbortSignal.timeout": TIMER,
  "globalThis.setTimeout": TIMER,
  "globalThis.setInterval": TIMER,
  "Math.random": RANDOM,
  "crypto.randomUUID": RANDOM,
  "crypto.getRandomValues": RANDOM,
  "Deno.env": PROCESS,
  "Deno.exit": PROCESS,
  "process.env": PROCESS,
  "process.exit": PROCESS,
  "console.*": CONSOLE,
  "Deno.*": {
    places: ["src/cli", "src/adapters"],
    instead: "the world is reached through ports, whose adapters may use it",
  },
};

/** Imports keep to the layers. */
const layers: Deno.lint.Rule = {
  create(context) {
    const from = repositoryPath(context);
    const check = (node: Deno.lint.Node, specifier: string) => {
      const target = importTarget(from, specifier);
      const refusal = refuseImport(from, target);
      if (refusal === undefined) return;
      const name = target.kind === "file" ? target.path : specifier;
      context.report({ node, message: `${from} must not import ${name}: ${refusal}` });
    };
    const checkSource = (node: { readonly source: Deno.lint.StringLiteral | null }) => {
      if (node.source !== null) check(node.source, node.source.value);
    };
    return {
      ImportDeclaration: checkSource,
      ExportNamedDeclaration: checkSource,
      ExportAllDeclaration: checkSource,
      ImportExpression(node) {
        const { source } = node;
        if (source.type === "Literal" && typeof source.value === "string") {
          check(source, source.value);
        } else if (from.startsWith("src/")) {
          context.report({ node, message: "The name of an imported module must be a literal" });
        }
      },
      TSImportType(node) {
        const { argument } = node;
        if (argument.type === "TSLiteralType" && argument.literal.type === "Literal") {
          check(node, String(argument.literal.value));
        }
      },
    };
  },
};

/** Time, randomness, settings, exit and output have one provider each. */
const globals: Deno.lint.Rule = {
  create(context) {
    const path = repositoryPath(context);
    if (!path.startsWith("src/") || isTestFile(path)) return {};
    const report = (node: Deno.lint.Node, name: string, ban: Ban | undefined) => {
      if (ban === undefined || ban.places.some((place) => isWithin(path, place))) return;
      context.report({ node, message: `${name} is not for ${path}: ${ban.instead}` });
    };
    return {
      CallExpression(node) {
        if (node.callee.type !== "Identifier") return;
        const { name } = node.callee;
        if (Object.hasOwn(BANNED_CALLS, name)) report(node, `${name}()`, BANNED_CALLS[name]);
      },
      NewExpression(node) {
        const now = node.callee.type === "Identifier" && node.callee.name === "Date" &&
          node.arguments.length === 0;
        if (now) report(node, "new Date()", CLOCK);
      },
      MemberExpression(node) {
        if (node.object.type !== "Identifier") return;
        const object = node.object.name;
        const property = memberName(node);
        const ban = BANNED_MEMBERS[`${object}.${property}`] ?? BANNED_MEMBERS[`${object}.*`];
        report(node, `${object}.${property}`, ban);
      },
    };
  },
};

function memberName(node: Deno.lint.MemberExpression): string {
  if (node.property.type === "Identifier" && !node.computed) return node.property.name;
  if (node.property.type === "Literal") return String(node.property.value);
  return "*";
}

/** `#name` is private at run time too; `private name` is only asked nicely. A constructor has no `#` form. */
const hashPrivate: Deno.lint.Rule = {
  create(context) {
    const check = (
      node: Deno.lint.PropertyDefinition | Deno.lint.MethodDefinition,
    ) => {
      if (node.accessibility === undefined || node.accessibility === "public") return;
      if (node.type === "MethodDefinition" && node.kind === "constructor") return;
      context.report({ node, message: `Write #name instead of ${node.accessibility}` });
    };
    return { PropertyDefinition: check, MethodDefinition: check };
  },
};

/**
 * What other modules call says what it returns. Parameters are the compiler's business, and so is a constant with a
 * declared type: the built-in rule for this does not know that and is off.
 */
const publicTypes: Deno.lint.Rule = {
  create(context) {
    const path = repositoryPath(context);
    if (!path.startsWith("src/") || isTestFile(path)) return {};
    const check = (node: Deno.lint.Node, name: string, typed: boolean) => {
      if (!typed) context.report({ node, message: `Declare the return type of ${name}` });
    };
    const checkClass = (node: Deno.lint.ClassDeclaration) => {
      for (const member of node.body.body) {
        if (member.type !== "MethodDefinition" || member.key.type === "PrivateIdentifier") continue;
        if (member.kind === "constructor" || member.kind === "set") continue;
        check(member, "a public method", member.value.returnType !== undefined);
      }
    };
    const checkDeclaration = (node: Deno.lint.Node | null) => {
      if (node?.type === "FunctionDeclaration") {
        check(node, "an exported function", node.returnType !== undefined);
      } else if (node?.type === "ClassDeclaration") {
        checkClass(node);
      } else if (node?.type === "VariableDeclaration") {
        for (const { id, init } of node.declarations) {
          const isFunction = init?.type === "ArrowFunctionExpression" ||
            init?.type === "FunctionExpression";
          if (!isFunction || id.type !== "Identifier" || id.typeAnnotation !== undefined) continue;
          check(init, `exported ${id.name}`, init.returnType !== undefined);
        }
      }
    };
    return {
      ExportNamedDeclaration: (node) => checkDeclaration(node.declaration),
      ExportDefaultDeclaration: (node) => checkDeclaration(node.declaration),
    };
  },
};

/** Messages of AppError are joined with `: ` and shown in the middle of lines: no final period. */
const errorMessage: Deno.lint.Rule = {
  create(context) {
    return {
      NewExpression(node) {
        if (node.callee.type !== "Identifier" || node.callee.name !== "AppError") return;
        const message = node.arguments[1];
        if (message === undefined || !endOfText(message).endsWith(".")) return;
        context.report({ node: message, message: "An error message has no final period" });
      },
    };
  },
};

/** The literal text that an expression surely ends with; empty when it is computed. */
function endOfText(node: Deno.lint.Node): string {
  if (node.type === "Literal") return typeof node.value === "string" ? node.value : "";
  if (node.type === "TemplateLiteral") return node.quasis.at(-1)?.cooked ?? "";
  if (node.type === "BinaryExpression") return endOfText(node.right);
  return "";
}

const plugin: Deno.lint.Plugin = {
  name: "klio",
  rules: {
    "layers": layers,
    "globals": globals,
    "public-types": publicTypes,
    "hash-private": hashPrivate,
    "error-message": errorMessage,
  },
};
export default plugin;
