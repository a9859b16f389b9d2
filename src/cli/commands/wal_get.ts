/**
 * `klio wal get`: what PostgreSQL's restore_command calls. Exit code 4 only when the server positively does not have the
 * file; an outage is another exit code, because PostgreSQL ends recovery on "not found" (design decision 16).
 *
 * PostgreSQL puts what it fetched in place of its own segment, whatever that holds. A standby has often streamed more of the
 * current segment than the archive, whose partial would then cost it WAL that it has confirmed (and end a promotion with
 * a panic). So a partial is handed out only when it has a byte that the segment beside the destination has not; on one
 * timeline equal beginnings mean that the local segment has at least as much.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { dirname } from "node:path";
import { AppError, EXIT_WAL_NOT_FOUND, isKind } from "../../base/failure.ts";
import type { Waiting } from "../../base/abort.ts";
import { parseWalName } from "../../domain/lsn.ts";
import { gapOver } from "../../domain/wal_gap.ts";
import type { FileHandle, Files } from "../../ports/files.ts";
import type { WalFileStream, WalGap, WalServer } from "../../ports/wal_server.ts";
import { openLocalFiles } from "../../adapters/localfs/files.ts";
import { absolutePath } from "../arguments.ts";
import { openWalServer } from "../clients.ts";
import type { CommandContext, RunCommand } from "../commands.ts";

const ZEROS_BYTES = 1 << 20;

/** See the module comment. */
export const run: RunCommand = async (context) => {
  const { log, random, signal } = context;
  const config = await context.loadConfig(["client", "client.wal"]);
  const [name = "", destination = ""] = context.args.positionals;
  parseWalName(name);
  using server = await openWalServer(config, context);
  const found = await find(server, { cluster: config.client.cluster_name, name }, { signal });
  if (found === undefined) {
    await reportAbsent(server, config.client.cluster_name, name, context);
    return EXIT_WAL_NOT_FOUND;
  }
  const files = openLocalFiles();
  const path = absolutePath(destination);
  const aside = `${path}.klio-${Buffer.from(random.bytes(4)).toString("hex")}`;
  const own = `${dirname(path)}/${name}`;
  await using local = found.partial && own !== path ? await openIfThere(files, own) : undefined;
  let localHasAll = local !== undefined;
  try {
    await using file = await files.open(aside, "create_new");
    const { blocks, segmentSizeBytes } = found.stream;
    let position = 0;
    for await (const block of blocks) {
      if (local !== undefined && localHasAll) localHasAll = await holds(local, block, position);
      await file.write(block, position);
      position += block.length;
    }
    if (position > segmentSizeBytes) {
      throw new AppError(
        "corruption",
        `Fetch WAL file "${name}": got ${position} bytes of at most ${segmentSizeBytes}`,
      );
    }
    if (localHasAll) {
      await files.removeTree(aside);
      log.info("The archive has nothing of this segment that is not there already", { name });
      return EXIT_WAL_NOT_FOUND;
    }
    await fillWithZeros(file, position, segmentSizeBytes);
    await file.close();
    await files.rename(aside, path);
  } catch (error) {
    await files.removeTree(aside);
    throw error;
  }
};

async function openIfThere(files: Files, path: string): Promise<FileHandle | undefined> {
  try {
    return await files.open(path, "read");
  } catch (error) {
    if (isKind(error, "not_found")) return undefined;
    throw error;
  }
}

async function holds(file: FileHandle, bytes: Uint8Array, position: number): Promise<boolean> {
  const own = new Uint8Array(bytes.length);
  return await file.read(own, position) === own.length && Buffer.compare(own, bytes) === 0;
}

async function fillWithZeros(file: FileHandle, from: number, end: number): Promise<void> {
  const zeros = new Uint8Array(Math.min(ZEROS_BYTES, end - from));
  for (let position = from; position < end;) {
    const part = zeros.subarray(0, end - position);
    await file.write(part, position);
    position += part.length;
  }
}

interface Found {
  readonly stream: WalFileStream;
  /** A segment of which the archive may not have the end. */
  readonly partial: boolean;
}

/** That recovery ends at a gap must not look like the end of the archive. */
async function reportAbsent(
  server: Pick<WalServer, "metadata">,
  cluster: string,
  name: string,
  { log, signal }: CommandContext,
): Promise<void> {
  let gaps: readonly WalGap[] = [];
  try {
    gaps = (await server.metadata(cluster, { signal })).gaps;
  } catch (error) {
    signal.throwIfAborted();
    // The file is absent in any case; only the reason is unknown then.
    if (!isKind(error, "not_found")) log.warn("Cannot ask for gaps in the WAL", {}, error);
  }
  const gap = gapOver(gaps, name);
  if (gap === undefined) log.info("The archive does not have this WAL file", { name });
  else {
    log.error(
      "This WAL is lost: recovery cannot go on beyond the gap, restore from a later base backup",
      { name, gapStart: gap.start, gapEnd: gap.end },
    );
  }
}

/** The complete file, else what is durable of a segment that is still being written. */
async function find(
  server: WalServer,
  wanted: { readonly cluster: string; readonly name: string },
  options: Waiting,
): Promise<Found | undefined> {
  const { kind, name } = parseWalName(wanted.name);
  const candidates = kind === "segment" && name === wanted.name
    ? [name, `${name}.partial`, name]
    : [wanted.name];
  for (const candidate of candidates) {
    try {
      const stream = await server.get({ cluster: wanted.cluster, name: candidate }, options);
      return { stream, partial: candidate !== wanted.name };
    } catch (error) {
      if (!isKind(error, "not_found")) throw error;
    }
  }
  return undefined;
}
