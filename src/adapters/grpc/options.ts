/**
 * Limits and settings that client and server of a connection share.
 *
 * @module
 */

import type { ChannelOptions } from "@grpc/grpc-js";

/** Largest message of the repository protocol, both ways: what stock kopia uses. */
export const BASE_MESSAGE_BYTES_MAX = 20 << 20;
/** Largest message of the WAL protocols, both ways: a block of 8 MiB with its frame. */
export const WAL_MESSAGE_BYTES_MAX = (8 << 20) + (512 << 10);
/** Largest block of WAL in one message. */
export const WAL_BLOCK_BYTES_MAX = 8 << 20;

/** HTTP/2 window: bytes a sender may have on the way without the receiver having read them. */
export const FLOW_CONTROL_WINDOW_BYTES = 8 << 20;
/** How a peer that vanished is noticed: after at most the sum of both, on either side. */
export interface Keepalive {
  /** A ping is sent this long after the answer to the last one. */
  readonly intervalMs: number;
  /** A connection whose ping is not answered by then is closed, and its calls fail. */
  readonly timeoutMs: number;
}

/** What everything but tests uses. */
export const KEEPALIVE_DEFAULT: Keepalive = { intervalMs: 20_000, timeoutMs: 10_000 };

/** Options for both sides. */
export function commonOptions(messageBytesMax: number, keepalive: Keepalive): ChannelOptions {
  return {
    "grpc.max_receive_message_length": messageBytesMax,
    "grpc.max_send_message_length": messageBytesMax,
    "grpc-node.flow_control_window": FLOW_CONTROL_WINDOW_BYTES,
    "grpc.keepalive_time_ms": keepalive.intervalMs,
    "grpc.keepalive_timeout_ms": keepalive.timeoutMs,
    "grpc.enable_channelz": 0,
  };
}

/** `host:port`, with brackets around an IPv6 address. */
export function formatAddress(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
