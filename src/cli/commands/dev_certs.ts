/**
 * `klio dev certs`: certificates for a laptop or a test.
 *
 * @module
 */

import { AppError, isKind } from "../../base/failure.ts";
import { utf8 } from "../../base/bytes.ts";
import { checkClusterName, isName } from "../../domain/identity.ts";
import { createDevCertificates, LOCAL_NAMES } from "../../adapters/x509/certificates.ts";
import { openLocalFiles } from "../../adapters/localfs/files.ts";
import type { RunCommand } from "../commands.ts";
import { absolutePath, parseCount } from "../arguments.ts";

const DAYS_MAX = 3650;

/** See the module comment. */
export const run: RunCommand = async ({ args, clock, print }) => {
  const dir = args.string("dir");
  const cluster = args.string("cluster");
  if (dir === undefined || cluster === undefined) {
    throw new AppError("usage", 'Run "klio dev certs": --dir and --cluster are needed', {
      hint: "see: klio dev certs --help",
    });
  }
  checkClusterName(cluster);
  const user = args.string("user") ?? "klio";
  if (!isName(user)) {
    throw new AppError(
      "usage",
      `Use --user "${user}": wanted ASCII letters, digits, ".", "_" or "-"`,
    );
  }
  const validDays = parseCount("--days", args.string("days") ?? "365", { min: 1, max: DAYS_MAX });
  const made = createDevCertificates({
    cluster,
    user,
    nowMs: clock.nowMs(),
    validDays,
    serverNames: [...args.strings("host"), ...LOCAL_NAMES],
  });
  const contents: readonly (readonly [string, string, number])[] = [
    ["ca.crt", made.authority.certificatePem, 0o644],
    ["server.crt", made.server.certificatePem, 0o644],
    ["server.key", made.server.keyPem, 0o600],
    ["client.crt", made.client.certificatePem, 0o644],
    ["client.key", made.client.keyPem, 0o600],
  ];
  const files = openLocalFiles();
  const directory = absolutePath(dir);
  for (const [name] of contents) {
    if (await exists(`${directory}/${name}`)) {
      throw new AppError("conflict", `Write certificates to "${dir}": "${name}" exists already`, {
        hint: "choose another directory or remove the old files",
      });
    }
  }
  await files.makeDirectory(directory, 0o755);
  for (const [name, text, mode] of contents) {
    await files.writeFileAtomic(`${directory}/${name}`, utf8(text), mode);
    print(`${directory}/${name}\n`);
  }

  async function exists(path: string): Promise<boolean> {
    try {
      await files.stat(path);
      return true;
    } catch (error) {
      if (isKind(error, "not_found")) return false;
      throw error;
    }
  }
};
