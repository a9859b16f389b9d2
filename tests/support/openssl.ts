/**
 * The `openssl` command line tool, when the machine has it.
 *
 * @module
 */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";

/** True when `openssl` can be run. */
export function hasOpenssl(): boolean {
  return spawnSync("openssl", ["version"]).status === 0;
}

/** A running `openssl s_server`; disposing ends it. */
export interface OpensslServer extends AsyncDisposable {
  readonly port: number;
}

/** Serves TLS 1.3 on a free loopback port with whatever certificate and key the files hold. */
export async function startOpensslServer(
  files: { readonly certificatePath: string; readonly keyPath: string },
): Promise<OpensslServer> {
  const child = spawn("openssl", [
    ...["s_server", "-accept", "127.0.0.1:0", "-tls1_3", "-alpn", "h2"],
    ...["-cert", files.certificatePath, "-key", files.keyPath],
  ], { stdio: ["pipe", "pipe", "ignore"] });
  return { port: await portOf(child), [Symbol.asyncDispose]: () => stop(child) };
}

/** Reads on after the answer, so that the program can go on writing. */
function portOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    let text = "";
    child.stdout?.on("data", (chunk) => {
      text += String(chunk);
      const port = /ACCEPT [^\n]*:(\d+)\n/.exec(text)?.[1];
      if (port !== undefined) resolve(Number(port));
    });
    child.once("exit", () => reject(new Error(`openssl s_server did not start: ${text}`)));
  });
}

async function stop(child: ChildProcess): Promise<void> {
  const exited = child.exitCode === null ? once(child, "exit") : undefined;
  child.kill("SIGKILL");
  await exited;
}
