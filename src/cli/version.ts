/**
 * The version of this build: `deno.json` is the one place that states it.
 *
 * @module
 */

import manifest from "../../deno.json" with { type: "json" };

/** `klio 0.1.0 (Deno 2.9.6, x86_64-unknown-linux-gnu)`. */
export function versionText(): string {
  return `klio ${manifest.version} (Deno ${Deno.version.deno}, ${Deno.build.target})`;
}
