/**
 * The control file of the server that is being backed up. It starts with the system identifier, which tells whether the
 * directory that we can read is the one that PostgreSQL speaks of; it is stored last, alone, and must not be torn: the
 * server overwrites it in place at every checkpoint, so it is read until two readings agree.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import { type Bytes, equalBytes, viewOf } from "../../base/bytes.ts";
import { AppError, isKind } from "../../base/failure.ts";
import { CONTROL_FILE } from "../../domain/data_directory.ts";
import type { Files } from "../../ports/files.ts";

/** More readings than checkpoints can end meanwhile. */
const READINGS_MAX = 10;
/** `PG_CONTROL_FILE_SIZE`. */
const SIZE_BYTES = 8192;

/** Reads `global/pg_control` and checks whose it is. Throws `source`. */
export async function readControlFile(
  files: Files,
  server: { readonly dataDirectory: string; readonly systemId: string },
  options: Waiting,
): Promise<Bytes> {
  const path = `${server.dataDirectory}/${CONTROL_FILE}`;
  let previous: Bytes | undefined;
  for (let reading = 0; reading < READINGS_MAX; reading++) {
    options.signal.throwIfAborted();
    const content = await read(files, path);
    if (previous !== undefined && equalBytes(previous, content)) return checked(content);
    previous = content;
  }
  throw new AppError(
    "source",
    `Read control file "${path}": it changed during ${READINGS_MAX} readings`,
  );

  function checked(content: Bytes): Bytes {
    const systemId = content.length === SIZE_BYTES
      ? String(viewOf(content).getBigUint64(0, true))
      : undefined;
    if (systemId !== server.systemId) {
      throw new AppError(
        "source",
        `Read control file "${path}": system identifier ${
          systemId ?? "absent"
        }, the server has ${server.systemId}`,
        { hint: "run klio where the server's own data directory is mounted" },
      );
    }
    return content;
  }
}

async function read(files: Files, path: string): Promise<Bytes> {
  try {
    return await files.readFile(path);
  } catch (cause) {
    if (!isKind(cause, "not_found")) throw cause;
    throw new AppError("source", `Read control file "${path}": no such file`, {
      cause,
      hint: "run klio where the server's own data directory is mounted",
    });
  }
}
