/**
 * Tables of `klio.wal.v1` (proto/klio/wal/v1/wal.proto).
 *
 * @module
 */

import { message, nested, repeated, scalar } from "../protobuf/schema.ts";

/** Full name of the service. */
export const WAL_SERVICE = "klio.wal.v1.WAL";

/** Block of a file going up. */
export const PutRequest = message("PutRequest", {
  clusterName: scalar(1, "string"),
  walName: scalar(2, "string"),
  walBlock: scalar(3, "bytes"),
  segmentSize: scalar(4, "uint64_number"),
  traceId: scalar(5, "string"),
  spanId: scalar(6, "string"),
  sendToTier2: scalar(7, "bool"),
});

/** Answer to all blocks. */
export const PutResult = message("PutResult", { writtenSize: scalar(1, "uint64_number") });

/** Asks for a file. */
export const GetRequest = message("GetRequest", {
  clusterName: scalar(1, "string"),
  walName: scalar(2, "string"),
});

/** Block of a file coming down. */
export const GetResult = message("GetResult", {
  walBlock: scalar(1, "bytes"),
  segmentSize: scalar(2, "uint64_number"),
});

/** Asks what is known of a cluster. */
export const GetMetadataRequest = message("GetMetadataRequest", {
  clusterName: scalar(1, "string"),
});

/** `google.protobuf.Timestamp`. */
export const Timestamp = message("Timestamp", {
  seconds: scalar(1, "int64_number"),
  nanos: scalar(2, "int32"),
});

/** A recorded gap. */
export const WalGapMessage = message("WALGap", {
  ts: nested(1, Timestamp),
  start: scalar(2, "string"),
  end: scalar(3, "string"),
});

/** What is known of a cluster. */
export const ClusterMetadata = message("ClusterMetadata", {
  systemId: scalar(1, "string"),
  gaps: repeated(nested(2, WalGapMessage)),
});

/** Start negotiation. */
export const RequestWalStartRequest = message("RequestWALStartRequest", {
  clusterName: scalar(1, "string"),
  systemId: scalar(2, "string"),
  currentWalName: scalar(3, "string"),
});

/** Where to start. */
export const RequestWalStartResult = message("RequestWALStartResult", {
  walName: scalar(1, "string"),
});

/** Asks to skip WAL that is lost. */
export const ResetWalStreamRequest = message("ResetWALStreamRequest", {
  clusterName: scalar(1, "string"),
  systemId: scalar(2, "string"),
  currentWalName: scalar(3, "string"),
});

/** Where to start after the gap. */
export const ResetWalStreamResult = message("ResetWALStreamResult", {
  walName: scalar(1, "string"),
});

/** Not served. */
export const SetFirstRequiredWalRequest = message("SetFirstRequiredWALRequest", {
  clusterName: scalar(1, "string"),
  firstRequiredWal: scalar(2, "string"),
});

/** Not served. */
export const SetFirstRequiredWalResult = message("SetFirstRequiredWALResult", {});

/** Asks which WAL files of a backup are missing. */
export const CloseBackupRequest = message("CloseBackupRequest", {
  clusterName: scalar(1, "string"),
  backupName: scalar(3, "string"),
  timeline: scalar(4, "int32"),
  startWal: scalar(5, "string"),
  endWal: scalar(6, "string"),
  segmentSize: scalar(7, "uint64_number"),
  sendToTier2: scalar(8, "bool"),
  tier2RetentionPolicy: scalar(9, "string"),
});

/** The missing files. */
export const CloseBackupResult = message("CloseBackupResult", {
  tier2Schedule: scalar(1, "bool"),
  missingWalFiles: repeated(scalar(2, "string")),
});
