/**
 * The streamer's decisions while one timeline streams, as a pure state machine: events in, effects out, no clock, no
 * waiting. Invariants: what is reported as flushed never exceeds what the server has acknowledged as durable since this
 * stream began (or what was reported before, on the same history), never goes back, and is withheld (0/0, which
 * PostgreSQL ignores) until it reaches the slot's restart position, so that the slot never moves back either.
 *
 * @module
 */

import { assert } from "../../base/assert.ts";
import { concat } from "../../base/bytes.ts";
import { AppError } from "../../base/failure.ts";
import { formatLsn, type Lsn, LSN_ZERO, lsnAdd, lsnDistance, lsnMax } from "../../domain/lsn.ts";
import type { ReplicationMessage, StandbyStatus } from "../../ports/postgres.ts";

/** What happened. */
export type StreamEvent =
  /** A batch was read from PostgreSQL. */
  | { readonly kind: "messages"; readonly messages: readonly ReplicationMessage[] }
  /** The server acknowledged everything before `position`. */
  | { readonly kind: "durable"; readonly position: Lsn }
  | { readonly kind: "tick" };

/** What to do, in this order. Bytes are owned. */
export type StreamEffect =
  | { readonly kind: "send"; readonly position: Lsn; readonly bytes: Uint8Array }
  | { readonly kind: "status"; readonly status: StandbyStatus };

/** Where a {@link StreamMachine} begins. */
export interface StreamMachineOptions {
  /** First byte that is wanted. */
  readonly start: Lsn;
  /** What PostgreSQL was told as flushed on this connection, within this timeline's history; 0/0 for nothing. */
  readonly reported: Lsn;
  /** Nothing below is reported: the slot's restart position. */
  readonly reportMin: Lsn;
  readonly statusIntervalMs: number;
  /** Monotonic. */
  readonly nowMs: number;
}

/** Small messages are joined up to this; larger ones pass as they are. */
export const SEND_BYTES_MAX = 1 << 20;

/** See the module comment. */
export class StreamMachine {
  readonly #options: StreamMachineOptions;
  /** End of what was received; every byte from `start` up to here was handed out to be sent. */
  #received: Lsn;
  #durable: Lsn = LSN_ZERO;
  #reported: Lsn;
  #walEnd: Lsn = LSN_ZERO;
  #lastStatusMs: number;

  constructor(options: StreamMachineOptions) {
    this.#options = options;
    this.#received = options.start;
    this.#reported = options.reported;
    this.#lastStatusMs = options.nowMs;
  }

  get received(): Lsn {
    return this.#received;
  }

  get durable(): Lsn {
    return this.#durable;
  }

  get reported(): Lsn {
    return this.#reported;
  }

  get walEnd(): Lsn {
    return this.#walEnd;
  }

  /** When the next status is due if nothing else happens; monotonic. */
  get statusDueMs(): number {
    return this.#lastStatusMs + this.#options.statusIntervalMs;
  }

  /** Throws `protocol` when PostgreSQL or the server says what cannot be. */
  step(event: StreamEvent, nowMs: number): StreamEffect[] {
    switch (event.kind) {
      case "messages":
        return this.#messages(event.messages, nowMs);
      case "durable":
        return this.#acknowledged(event.position) ? [this.#status(nowMs)] : [];
      case "tick":
        return nowMs >= this.statusDueMs ? [this.#status(nowMs)] : [];
    }
  }

  #messages(messages: readonly ReplicationMessage[], nowMs: number): StreamEffect[] {
    let replyRequested = false;
    const sends: StreamEffect[] = [];
    let position = this.#received;
    let parts: Uint8Array[] = [];
    let sizeBytes = 0;
    const flush = () => {
      const [first] = parts;
      if (first === undefined) return;
      sends.push({ kind: "send", position, bytes: parts.length === 1 ? first : concat(parts) });
      position = lsnAdd(position, sizeBytes);
      parts = [];
      sizeBytes = 0;
    };
    for (const message of messages) {
      this.#walEnd = lsnMax(this.#walEnd, message.walEnd);
      if (message.kind === "keepalive") {
        replyRequested ||= message.replyRequested;
        continue;
      }
      if (message.start !== this.#received) {
        throw new AppError(
          "protocol",
          `Receive WAL at ${formatLsn(message.start)}: wanted ${formatLsn(this.#received)}`,
        );
      }
      if (sizeBytes + message.bytes.length > SEND_BYTES_MAX) flush();
      parts.push(message.bytes);
      sizeBytes += message.bytes.length;
      this.#received = lsnAdd(this.#received, message.bytes.length);
    }
    flush();
    // The answer goes first: sending may wait for a server that stalls.
    return replyRequested ? [this.#status(nowMs), ...sends] : sends;
  }

  /** True when PostgreSQL should hear of it. */
  #acknowledged(position: Lsn): boolean {
    if (position < this.#durable || position > this.#received) {
      throw new AppError(
        "protocol",
        `Receive acknowledgement of ${formatLsn(position)}: wanted a position from ${
          formatLsn(this.#durable)
        } to ${formatLsn(this.#received)}`,
      );
    }
    this.#durable = position;
    if (position < this.#options.reportMin || position <= this.#reported) return false;
    this.#reported = position;
    return true;
  }

  #status(nowMs: number): StreamEffect {
    assert(
      this.#reported === this.#options.reported || this.#reported <= this.#durable,
      "only durable positions are reported",
    );
    this.#lastStatusMs = nowMs;
    const received = lsnDistance(this.#options.start, this.#received) === 0
      ? LSN_ZERO
      : this.#received;
    return {
      kind: "status",
      status: {
        write: lsnMax(received, this.#reported),
        flush: this.#reported,
        apply: this.#reported,
        replyRequested: false,
      },
    };
  }
}
