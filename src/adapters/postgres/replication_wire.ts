/**
 * The socket of a replication connection after `pg` has logged in: our own parser over it, because `pg` hands out COPY
 * payloads as views into a buffer that it uses again. Reading is bounded: at most {@link READ_AHEAD_BYTES_MAX} plus one
 * chunk wait here, then the socket is paused, the kernel's buffers fill, and PostgreSQL feels it.
 *
 * @module
 */

import type { Socket } from "node:net";
import { abortable, type Waiting } from "../../base/abort.ts";
import { AppError } from "../../base/failure.ts";
import { type BackendMessage, BackendParser } from "../../codec/pgrepl/backend.ts";
import { closeSocket, TERMINATE } from "./sql_connection.ts";

/** What may be read before anybody asks: enough for the next batch to be large when the consumer was busy. */
export const READ_AHEAD_BYTES_MAX = 1 << 20;

/** See the module comment. One reader at a time. */
export class ReplicationWire implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #parser = new BackendParser();
  #chunks: Uint8Array[] = [];
  #chunkBytes = 0;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();

  /** Takes a socket over on which nothing is under way (after ReadyForQuery). */
  constructor(socket: Socket) {
    this.#socket = socket;
    for (const event of ["data", "end", "error", "close", "readable"]) {
      socket.removeAllListeners(event);
    }
    socket.on("data", (chunk: Uint8Array) => {
      this.#chunks.push(chunk);
      this.#chunkBytes += chunk.length;
      if (this.#chunkBytes >= READ_AHEAD_BYTES_MAX) socket.pause();
      this.#signalChange();
    });
    const onEnd = () => {
      this.#ended = true;
      this.#signalChange();
    };
    socket.on("end", onEnd);
    socket.on("close", onEnd);
    socket.on("error", (error) => {
      this.#failure ??= { error };
      this.#signalChange();
    });
    socket.resume();
  }

  #signalChange(): void {
    const changed = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    changed.resolve();
  }

  /**
   * What has arrived, at least one message; undefined when PostgreSQL has closed the connection. An abort stops the
   * waiting only: nothing is lost, and the connection stays as it is.
   */
  async read(options: Waiting): Promise<readonly BackendMessage[] | undefined> {
    for (;;) {
      options.signal.throwIfAborted();
      const messages = this.#chunks.splice(0).flatMap((chunk) => this.#parser.push(chunk));
      this.#chunkBytes = 0;
      if (messages.length > 0) return messages;
      if (this.#failure !== undefined) throw this.#failure.error;
      if (this.#ended) return undefined;
      this.#socket.resume();
      await abortable(this.#changed.promise, options);
    }
  }

  /** Resolves when the bytes are handed to the system. Calls keep their order. */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure.error);
      if (!this.#socket.writable) {
        return reject(new AppError("source", "Write to PostgreSQL: the connection is closed"));
      }
      this.#socket.write(bytes, (error) => error ? reject(error) : resolve());
    });
  }

  /** Closes at once; for a connection in an unknown state. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** Says goodbye and closes; idempotent, never throws. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.removeAllListeners("data");
    this.#socket.resume();
    await closeSocket(this.#socket, TERMINATE);
  }
}
