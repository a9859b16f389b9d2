/**
 * An exclusive lock that the kernel drops when its holder dies, however that happens: flock(2) on a file of its own. The
 * file stays when the lock is released; removing it would let two holders lock two files of the same name.
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";

/** Locks `path` (created when absent); `conflict` while another holds it, in this process or in another. */
export async function lockFile(path: string): Promise<AsyncDisposable> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path, { create: true, read: true, write: true, mode: 0o600 });
  } catch (cause) {
    throw new AppError("repository", `Open lock file "${path}"`, { cause });
  }
  let held = false;
  try {
    held = await file.tryLock(true);
  } catch (cause) {
    throw new AppError("repository", `Lock file "${path}"`, {
      cause,
      hint: "the file system must support flock",
    });
  } finally {
    if (!held) file.close();
  }
  if (!held) {
    throw new AppError("conflict", `Lock file "${path}": another process holds it`, {
      hint: "only one server may own a repository: stop the other one",
    });
  }
  return {
    [Symbol.asyncDispose]: () => {
      if (held) file.close(); // closing the descriptor releases the lock
      held = false;
      return Promise.resolve();
    },
  };
}
