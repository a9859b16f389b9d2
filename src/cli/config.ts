/**
 * Loads the configuration: flag > environment > file > default. Read once, into a frozen typed object. Unknown keys of the
 * file are errors wherever they stand; unknown `KLIO_*` variables are not, because Kubernetes itself sets such names for a
 * Service called `klio-…`. Every problem names the key, the source of the value and what is wanted, all of them at once.
 *
 * @module
 */

import { AppError, isKind } from "../base/failure.ts";
import {
  SECTION_NAMES,
  type SectionName,
  SECTIONS,
  type Setting,
  type Settings,
  settingsOf,
} from "./settings.ts";

/** Where values come from. */
export interface ConfigSources {
  readonly flag: (name: string) => string | undefined;
  readonly env: (name: string) => string | undefined;
  /** `--config`; relative to the working directory. */
  readonly file: string | undefined;
  readonly readTextFile: (path: string) => Promise<string>;
}

interface Given {
  readonly value: unknown;
  /** `flag --log-level`, `environment variable KLIO_LOG_LEVEL`, `file "klio.yaml"`. */
  readonly source: string;
}

type Tree = Readonly<Record<string, unknown>>;

function isTree(value: unknown): value is Tree {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

async function readTree(sources: ConfigSources): Promise<Tree> {
  const path = sources.file;
  if (path === undefined) return {};
  let text: string;
  try {
    text = await sources.readTextFile(path);
  } catch (cause) {
    throw new AppError(
      "config",
      `Read configuration file "${path}": ${
        isKind(cause, "not_found") ? "no such file" : "cannot be read"
      }`,
      {
        cause,
        hint: "check the path given with --config or KLIO_CONFIG",
      },
    );
  }
  // Loaded on demand: restore_command runs klio without a file, once per WAL segment.
  const { parseYaml } = await import("./yaml.ts");
  const tree = parseYaml(text, `configuration file "${path}"`) ?? {};
  if (!isTree(tree)) {
    throw new AppError(
      "config",
      `Read configuration file "${path}": wanted a mapping of sections, saw ${
        Array.isArray(tree) ? "a list" : typeof tree
      }`,
    );
  }
  return tree;
}

/** Values of the file by key; problems are the keys that klio does not know. */
function flatten(
  tree: Tree,
  file: string,
): { readonly values: Map<string, Given>; readonly problems: string[] } {
  const leaves = new Set(settingsOf(SECTION_NAMES).map((s) => s.key));
  const branches = new Set(SECTION_NAMES.flatMap((s) => {
    const parts = s.split(".");
    return parts.map((_, i) => parts.slice(0, i + 1).join("."));
  }));
  const values = new Map<string, Given>();
  const problems: string[] = [];
  const source = `file "${file}"`;
  const walk = (node: Tree, prefix: string) => {
    for (const [name, value] of Object.entries(node)) {
      const key = prefix === "" ? name : `${prefix}.${name}`;
      if (leaves.has(key)) values.set(key, { value, source });
      else if (!branches.has(key)) {
        problems.push(`${key} (${source}): unknown key${suggestion(key, leaves)}`);
      } else if (isTree(value)) walk(value, key);
      else if (value !== null) {
        problems.push(`${key} (${source}): wanted a mapping, saw ${JSON.stringify(value)}`);
      }
    }
  };
  walk(tree, "");
  return { values, problems };
}

function suggestion(key: string, leaves: ReadonlySet<string>): string {
  const last = key.slice(key.lastIndexOf(".") + 1);
  const near = [...leaves].filter((leaf) => leaf.endsWith(`.${last}`));
  return near.length === 0 ? "" : `, did you mean ${near.join(" or ")}?`;
}

function giveOne(
  setting: Setting,
  sources: ConfigSources,
  file: ReadonlyMap<string, Given>,
): Given | undefined {
  const coerce = (text: string): unknown =>
    setting.type === "integer" && /^-?\d+$/.test(text) ? Number(text) : text;
  const flag = sources.flag(setting.flag);
  if (flag !== undefined) return { value: coerce(flag), source: `flag --${setting.flag}` };
  const env = sources.env(setting.env);
  if (env !== undefined) {
    return { value: coerce(env), source: `environment variable ${setting.env}` };
  }
  return file.get(setting.key);
}

/** Loads the given sections. Throws `config` with every problem found. */
export async function loadConfig<const S extends SectionName>(
  sections: readonly S[],
  sources: ConfigSources,
): Promise<Settings<S>> {
  const { values, problems } = flatten(await readTree(sources), sources.file ?? "");
  const result: Record<string, unknown> = {};
  for (const section of sections) {
    const settings = settingsOf([section]);
    const given = new Map<string, Given>();
    for (const setting of settings) {
      const one = giveOne(setting, sources, values);
      if (one !== undefined && one.value !== null) given.set(setting.name, one);
    }
    const parsed = SECTIONS[section].safeParse(
      Object.fromEntries([...given].map(([name, one]) => [name, one.value])),
    );
    for (const issue of parsed.error?.issues ?? []) {
      const setting = settings.find((s) => s.name === issue.path[0]);
      if (setting === undefined) continue;
      problems.push(problemOf(setting, given.get(setting.name), issue));
    }
    result[section] = Object.freeze(parsed.data);
  }
  if (problems.length > 0) {
    const list = problems.length === 1 ? problems[0] : `\n  ${problems.join("\n  ")}`;
    throw new AppError("config", `Read configuration: ${list}`, {
      hint: "precedence: flag > environment > file > default; --help lists every setting",
    });
  }
  return result as Settings<S>;
}

function problemOf(
  setting: Setting,
  given: Given | undefined,
  issue: { readonly code: string; readonly message: string },
): string {
  if (given === undefined) {
    return `${setting.key}: missing, set it with --${setting.flag}, ${setting.env} or ${setting.key} in the configuration file`;
  }
  const wanted = issue.code === "custom" || issue.code === "invalid_format"
    ? issue.message
    : `wanted ${setting.wanted}`;
  return `${setting.key} (${given.source}): ${wanted}, saw ${JSON.stringify(given.value)}`;
}
