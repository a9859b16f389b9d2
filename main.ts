/**
 * klio: one binary, five long-running roles and a command line. See `src/cli/main.ts`.
 *
 * @module
 */

import { main } from "./src/cli/main.ts";

await main(Deno.args);
