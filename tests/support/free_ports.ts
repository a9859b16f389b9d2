/**
 * Ports for servers that must come back on the port they had: below the range that systems give to outgoing connections,
 * so that none of those takes it while the server is down.
 *
 * @module
 */

import type { Random } from "../../src/base/clock.ts";

const PORT_MIN = 10_000;
const PORT_MAX = 20_000; // above are the ports of local PostgreSQL clusters

function listenAnywhere(random: Random): Deno.TcpListener {
  for (;;) {
    const port = PORT_MIN + Math.floor(random.float() * (PORT_MAX - PORT_MIN));
    try {
      return Deno.listen({ hostname: "127.0.0.1", port });
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}

/** Two ports of 127.0.0.1 that nobody listens on now. */
export function twoFreePorts(random: Random): readonly [number, number] {
  using first = listenAnywhere(random);
  using second = listenAnywhere(random);
  return [first.addr.port, second.addr.port];
}
