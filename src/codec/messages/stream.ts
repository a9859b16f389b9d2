/**
 * Tables of `klio.stream.v1` (proto/klio/stream/v1/stream.proto).
 *
 * @module
 */

import { message, nested, oneof, scalar } from "../protobuf/schema.ts";

/** Full name of the service. */
export const STREAM_SERVICE = "klio.stream.v1.WALStream";

/** First request of a stream. */
export const AppendOpen = message("AppendOpen", {
  clusterName: scalar(1, "string"),
  systemId: scalar(2, "string"),
  timeline: scalar(3, "uint32"),
  startLsn: scalar(4, "fixed64"),
  segmentSize: scalar(5, "uint64_number"),
});

/** WAL bytes. */
export const AppendData = message("AppendData", {
  lsn: scalar(1, "fixed64"),
  data: scalar(2, "bytes"),
  zstd: scalar(3, "bytes"),
  size: scalar(4, "uint32"),
});

/** What a client sends. */
export const AppendRequest = message("AppendRequest", {
  request: oneof({ open: nested(1, AppendOpen), data: nested(2, AppendData) }),
});

/** First response of a stream. */
export const AppendOpened = message("AppendOpened", { startLsn: scalar(1, "fixed64") });

/** Acknowledgement. */
export const AppendDurable = message("AppendDurable", { durableLsn: scalar(1, "fixed64") });

/** What a server sends. */
export const AppendResponse = message("AppendResponse", {
  response: oneof({ opened: nested(1, AppendOpened), durable: nested(2, AppendDurable) }),
});

/** A timeline history file. */
export const PutHistoryRequest = message("PutHistoryRequest", {
  clusterName: scalar(1, "string"),
  systemId: scalar(2, "string"),
  timeline: scalar(3, "uint32"),
  content: scalar(4, "bytes"),
});

/** The history file is durable. */
export const PutHistoryResponse = message("PutHistoryResponse", {});
