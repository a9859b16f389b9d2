/**
 * YAML through the npm package `yaml` (the user's card names @std/yaml; JSR cannot be reached from the build machines,
 * design decision 2): going back is a change of this file alone.
 *
 * @module
 */

import { parseDocument } from "yaml";
import { AppError } from "../base/failure.ts";

const ALIASES_MAX = 100; // the package's own bound against exponential expansion

/** Parses one YAML document. Throws `config` naming `source` and the position. */
export function parseYaml(text: string, source: string): unknown {
  const document = parseDocument(text, { uniqueKeys: true });
  const problem = document.errors[0];
  if (problem !== undefined) {
    throw new AppError(
      "config",
      `Read ${source}: not YAML: ${problem.message.split("\n")[0]?.replace(/:$/, "")}`,
    );
  }
  return document.toJS({ maxAliasCount: ALIASES_MAX });
}
