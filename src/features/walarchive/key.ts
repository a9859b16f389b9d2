/**
 * The archive key on the storage: `<root>/wal.key` (FORMAT.md). It is made once, before the first WAL, and never again: an
 * archive without its key is an error, not a reason to make another one.
 *
 * @module
 */

import { fromUtf8, utf8 } from "../../base/bytes.ts";
import type { Random } from "../../base/clock.ts";
import { AppError } from "../../base/failure.ts";
import { KEY_BYTES } from "../../codec/walfile/format.ts";
import { decodeKeyFile, encodeKeyFile, KEY_FILE_SALT_BYTES } from "../../codec/walfile/key_file.ts";
import type { Files } from "../../ports/files.ts";
import { isAside, keyPath, stored, storedIfPresent } from "./storage.ts";

/** What may lie in the root of an empty archive: the server's lock file and what a new file system has. */
const FOREIGN_NAMES: readonly string[] = [".lock", "lost+found"];

/** Where the key is and how it is protected. */
export interface KeyOptions {
  readonly files: Files;
  readonly random: Random;
  readonly root: string;
  readonly password: string;
}

/** Loads the key, or makes it in an empty archive. Throws `permission` for a wrong password, `corruption` without key. */
export async function loadArchiveKey(options: KeyOptions): Promise<Uint8Array> {
  const { files, random, root, password } = options;
  await stored("Create WAL archive", files.makeDirectory(root));
  const path = keyPath(root);
  const bytes = await storedIfPresent("Read archive key", files.readFile(path));
  if (bytes !== undefined) return decodeKeyFile(fromUtf8(bytes), { password });
  const others = (await stored("List WAL archive", files.list(root)))
    .filter((name) => !isAside(name) && !FOREIGN_NAMES.includes(name));
  if (others.length > 0) {
    throw new AppError(
      "corruption",
      `Open WAL archive "${root}": "wal.key" is gone, but "${others[0]}" is there`,
      { hint: "restore wal.key from a backup of the archive; nothing can be read without it" },
    );
  }
  const key = random.bytes(KEY_BYTES);
  const text = encodeKeyFile(key, { password, salt: random.bytes(KEY_FILE_SALT_BYTES) });
  await stored("Write archive key", files.writeFileAtomic(path, utf8(text), 0o600));
  return key;
}
