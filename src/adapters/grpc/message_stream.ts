/**
 * Pulling messages out of, and pushing them into, the object streams of the gRPC library, with back-pressure in both
 * directions: nothing is read before it is asked for (the library then stops reading the socket, and HTTP/2 flow control
 * stops the sender), and no more than a budget of bytes is handed over without being on its way.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { abortable, type Waiting } from "../../base/abort.ts";
import { ByteBudget } from "../../base/byte_budget.ts";
import type { Bytes } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";

/** Encoded messages handed to the library and not yet taken by HTTP/2. */
const FLIGHT_LIMITS = { bytesMax: 4 << 20, itemsMax: 1024 };

/** Hands over bytes as they are. */
export function serialize(message: Bytes): Buffer {
  return Buffer.from(message.buffer, message.byteOffset, message.byteLength);
}

/** The library allocates a buffer per message and forgets it, so the view is ours. */
export function deserialize(buffer: Buffer): Bytes {
  return new Uint8Array(buffer.buffer as ArrayBuffer, buffer.byteOffset, buffer.byteLength);
}

/** What is used of the library's streams, on either side. */
interface ObjectStream {
  read(): Bytes | null;
  write(message: Bytes, taken: () => void): boolean;
  on(event: "readable" | "end" | "close", listener: () => void): unknown;
}

/** One call's messages; see the module comment. */
export class MessageStream {
  readonly #stream: ObjectStream;
  readonly #flight = new ByteBudget(FLIGHT_LIMITS);
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();
  #ended = false;
  #failure: { readonly error: unknown } | undefined;

  constructor(stream: ObjectStream) {
    this.#stream = stream;
    stream.on("readable", () => this.#wake());
    stream.on("end", () => {
      this.#ended = true;
      this.#wake();
    });
    stream.on("close", () => {
      if (!this.#ended) this.fail(new AppError("cancelled", "The call was closed"));
    });
  }

  /** Ends sending at once; receiving ends after the messages that have arrived. The first failure wins. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#flight.fail(error);
    this.#wake();
  }

  /** The next message; undefined after the last. */
  async receive(options: Waiting): Promise<Bytes | undefined> {
    for (;;) {
      options.signal.throwIfAborted();
      const message = this.#stream.read();
      if (message !== null) return message;
      if (this.#failure !== undefined) throw this.#failure.error;
      if (this.#ended) return undefined;
      await abortable(this.#changed.promise, options);
    }
  }

  /** Hands a message over; waits for room first. The message belongs to the stream from here on. */
  async send(message: Bytes, options: Waiting): Promise<void> {
    const sizeBytes = message.length;
    await this.#flight.acquire(sizeBytes, options);
    this.#stream.write(message, () => this.#flight.release(sizeBytes));
  }

  #wake(): void {
    const changed = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    changed.resolve();
  }
}
