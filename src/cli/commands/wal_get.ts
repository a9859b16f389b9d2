/**
 * `klio wal get`: what PostgreSQL's restore_command calls. Exit code 4 only when the server positively does not have the
 * file; an outage is another exit code, because PostgreSQL ends recovery on "not found" (design decision 16).
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { AppError, EXIT_WAL_NOT_FOUND, isKind } from "../../base/failure.ts";
import type { Waiting } from "../../base/abort.ts";
import { parseWalName } from "../../domain/lsn.ts";
import type { WalFileStream, WalServer } from "../../ports/wal_server.ts";
import { openLocalFiles } from "../../adapters/localfs/files.ts";
import { absolutePath } from "../arguments.ts";
import { openWalServer } from "../clients.ts";
import type { RunCommand } from "../commands.ts";

const ZEROS_BYTES = 1 << 20;

/** See the module comment. */
export const run: RunCommand = async (context) => {
  const { log, random, signal } = context;
  const config = await context.loadConfig(["client", "client.wal"]);
  const [name = "", destination = ""] = context.args.positionals;
  parseWalName(name);
  using server = await openWalServer(config, context);
  const stream = await find(server, { cluster: config.client.cluster_name, name }, { signal });
  if (stream === undefined) {
    log.info("The archive does not have this WAL file", { name });
    return EXIT_WAL_NOT_FOUND;
  }
  const files = openLocalFiles();
  const path = absolutePath(destination);
  const aside = `${path}.klio-${Buffer.from(random.bytes(4)).toString("hex")}`;
  try {
    await using file = await files.open(aside, "create_new");
    let position = 0;
    for await (const block of stream.blocks) {
      await file.write(block, position);
      position += block.length;
    }
    if (position > stream.segmentSizeBytes) {
      throw new AppError(
        "corruption",
        `Fetch WAL file "${name}": got ${position} bytes of at most ${stream.segmentSizeBytes}`,
      );
    }
    const zeros = new Uint8Array(Math.min(ZEROS_BYTES, stream.segmentSizeBytes - position));
    while (position < stream.segmentSizeBytes) {
      const part = zeros.subarray(0, stream.segmentSizeBytes - position);
      await file.write(part, position);
      position += part.length;
    }
    await file.close();
    await files.rename(aside, path);
  } catch (error) {
    await files.removeTree(aside);
    throw error;
  }
};

/** The complete file, else what is durable of a segment that is still being written. */
async function find(
  server: WalServer,
  wanted: { readonly cluster: string; readonly name: string },
  options: Waiting,
): Promise<WalFileStream | undefined> {
  const { kind, name } = parseWalName(wanted.name);
  const candidates = kind === "segment" && name === wanted.name
    ? [name, `${name}.partial`, name]
    : [wanted.name];
  for (const candidate of candidates) {
    try {
      return await server.get({ cluster: wanted.cluster, name: candidate }, options);
    } catch (error) {
      if (!isKind(error, "not_found")) throw error;
    }
  }
  return undefined;
}
