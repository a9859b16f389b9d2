/**
 * A TCP proxy whose connections can go half-open, as when a machine loses power or a firewall forgets a connection: nothing
 * is forwarded any more, nothing is closed, and neither end is told. Connections made afterwards work.
 *
 * @module
 */

/** One forwarded connection. */
interface Pair {
  readonly ends: readonly [Deno.TcpConn, Deno.TcpConn];
  /** Set while nothing is forwarded. */
  frozen: PromiseWithResolvers<void> | undefined;
  forwardedBytes: number;
  done: Promise<void>;
}

const CHUNK_BYTES = 64 << 10;

/** See the module comment. */
export class HalfOpenProxy implements AsyncDisposable {
  readonly #listener: Deno.TcpListener;
  readonly #targetPort: number;
  readonly #pairs = new Set<Pair>();
  readonly #accepting: Promise<void>;
  #closed = false;

  /** Forwards from a free loopback port to `targetPort`. */
  constructor(targetPort: number) {
    this.#targetPort = targetPort;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#accepting = this.#accept();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  /** Connections that neither end has closed. */
  get connections(): number {
    return this.#pairs.size;
  }

  /** Bytes forwarded both ways over the connections that are open now. */
  get forwardedBytes(): number {
    return [...this.#pairs].reduce((sum, pair) => sum + pair.forwardedBytes, 0);
  }

  /** All present connections go half-open. */
  freeze(): void {
    for (const pair of this.#pairs) pair.frozen ??= Promise.withResolvers<void>();
  }

  /** They go on, as after a short outage of the network. */
  thaw(): void {
    for (const pair of this.#pairs) {
      pair.frozen?.resolve();
      pair.frozen = undefined;
    }
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) {
      const server = await Deno.connect({ hostname: "127.0.0.1", port: this.#targetPort });
      if (this.#closed) {
        client.close();
        server.close();
        return;
      }
      const pair: Pair = {
        ends: [client, server],
        frozen: undefined,
        forwardedBytes: 0,
        done: Promise.resolve(),
      };
      this.#pairs.add(pair);
      pair.done = this.#forward(pair);
    }
  }

  async #forward(pair: Pair): Promise<void> {
    const [a, b] = pair.ends;
    await Promise.all([pump(pair, a, b), pump(pair, b, a)]);
    this.#pairs.delete(pair);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener.close();
    await this.#accepting;
    for (const pair of this.#pairs) close(pair);
    this.thaw();
    await Promise.all([...this.#pairs].map((pair) => pair.done));
  }
}

async function pump(pair: Pair, from: Deno.TcpConn, to: Deno.TcpConn): Promise<void> {
  const buffer = new Uint8Array(CHUNK_BYTES);
  try {
    for (;;) {
      await pair.frozen?.promise;
      const count = await from.read(buffer);
      await pair.frozen?.promise;
      if (count === null) break;
      for (let at = 0; at < count;) at += await to.write(buffer.subarray(at, count));
      pair.forwardedBytes += count;
    }
  } catch (error) {
    if (!isConnectionEnd(error)) throw error;
  }
  close(pair);
}

function isConnectionEnd(error: unknown): boolean {
  return error instanceof Deno.errors.ConnectionReset ||
    error instanceof Deno.errors.BrokenPipe ||
    error instanceof Deno.errors.BadResource ||
    error instanceof Deno.errors.Interrupted ||
    error instanceof Deno.errors.NotConnected;
}

function close(pair: Pair): void {
  for (const end of pair.ends) {
    try {
      end.close();
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error; // closed already
    }
  }
}
