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
const FLOW_CONTROL_WINDOW_BYTES = 8 << 20;
/** A peer that vanished is noticed after the sum of both, on either side. */
const KEEPALIVE_TIME_MS = 20_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;

/** Options for both sides. */
export function commonOptions(messageBytesMax: number): ChannelOptions {
  return {
    "grpc.max_receive_message_length": messageBytesMax,
    "grpc.max_send_message_length": messageBytesMax,
    "grpc-node.flow_control_window": FLOW_CONTROL_WINDOW_BYTES,
    "grpc.keepalive_time_ms": KEEPALIVE_TIME_MS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
    "grpc.enable_channelz": 0,
  };
}

/** `host:port`, with brackets around an IPv6 address. */
export function formatAddress(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
