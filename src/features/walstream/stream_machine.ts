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
import {
  formatLsn,
  type Lsn,
  lsn,
  LSN_ZERO,
  lsnAdd,
  lsnDistance,
  lsnMax,
} from "../../domain/lsn.ts";
import type { ReplicationMessage, StandbyStatus } from "../../ports/postgres.ts";

/** What happened. */
export type StreamEvent =
  /** A batch was read from PostgreSQL. */
  | { readonly kind: "messages"; readonly messages: readonly ReplicationMessage[] }
  /** The server acknowledged everything before `position`. */
  | { readonly kind: "durable"; readonly position: Lsn }
  /** Nothing that is held may wait longer: its time is over, or no more will come. */
  | { readonly kind: "flush" }
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
  /** What has arrived is joined up to this; a larger message passes as it is. */
  readonly sendBytesMax: number;
  /** How long WAL is held so that more may join it; 0 sends what one reading brought at once. */
  readonly holdMs: number;
  /** Monotonic. */
  readonly nowMs: number;
}

/** See the module comment. */
export class StreamMachine {
  readonly #options: StreamMachineOptions;
  /** End of what was received; every byte from `start` up to here was handed out to be sent, or is held. */
  #received: Lsn;
  /** The last bytes before `#received`, not yet handed out. */
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #heldSinceMs = 0;
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

  /** When `flush` is due; undefined while nothing is held. Monotonic. */
  get flushDueMs(): number | undefined {
    return this.#heldBytes === 0 ? undefined : this.#heldSinceMs + this.#options.holdMs;
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
      case "flush":
        return this.#release();
      case "tick":
        return nowMs >= this.statusDueMs ? [this.#status(nowMs)] : [];
    }
  }

  #messages(messages: readonly ReplicationMessage[], nowMs: number): StreamEffect[] {
    const { sendBytesMax, holdMs } = this.#options;
    let replyRequested = false;
    const sends: StreamEffect[] = [];
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
      if (this.#heldBytes + message.bytes.length > sendBytesMax) sends.push(...this.#release());
      if (this.#heldBytes === 0) this.#heldSinceMs = nowMs;
      this.#held.push(message.bytes);
      this.#heldBytes += message.bytes.length;
      this.#received = lsnAdd(this.#received, message.bytes.length);
    }
    if (holdMs === 0 || this.#heldBytes >= sendBytesMax) sends.push(...this.#release());
    // The answer goes first: sending may wait for a server that stalls.
    return replyRequested ? [this.#status(nowMs), ...sends] : sends;
  }

  /** What is held, as one piece. */
  #release(): StreamEffect[] {
    const [first] = this.#held;
    if (first === undefined) return [];
    const bytes = this.#held.length === 1 ? first : concat(this.#held);
    const position = lsn(this.#received - BigInt(this.#heldBytes));
    this.#held = [];
    this.#heldBytes = 0;
    return [{ kind: "send", position, bytes }];
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
