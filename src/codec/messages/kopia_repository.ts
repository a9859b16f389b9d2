/**
 * Tables of `kopia_repository` (proto/kopia_repository.proto).
 *
 * @module
 */

import { message, nested, oneof, repeated, scalar, stringMap } from "../protobuf/schema.ts";

/** Full name of the service. */
export const REPOSITORY_SERVICE = "kopia_repository.KopiaRepository";

/** Values of `ErrorResponse.code`. */
export const ERROR_CODE = {
  unknownError: 0,
  clientError: 1,
  contentNotFound: 2,
  manifestNotFound: 3,
  objectNotFound: 4,
  accessDenied: 5,
  streamBroken: 6,
  notAVolume: 7,
} as const;

/** An error that ends one request, not the stream. */
export const ErrorResponse = message("ErrorResponse", {
  code: scalar(1, "enum"),
  message: scalar(2, "string"),
  klioKind: scalar(1000, "string"),
  klioHint: scalar(1001, "string"),
});

/** Parameters of the repository. */
export const RepositoryParametersMessage = message("RepositoryParameters", {
  hashFunction: scalar(1, "string"),
  hmacSecret: scalar(2, "bytes"),
  splitter: scalar(3, "string"),
  supportsContentCompression: scalar(4, "bool"),
});

/** A stored content. */
export const ContentInfoMessage = message("ContentInfo", {
  id: scalar(1, "string"),
  packedLength: scalar(2, "uint32"),
  timestampSeconds: scalar(3, "int64_number"),
  packBlobId: scalar(4, "string"),
  packOffset: scalar(5, "uint32"),
  deleted: scalar(6, "bool"),
  formatVersion: scalar(7, "uint32"),
  originalLength: scalar(8, "uint32"),
});

/** A manifest without its document. */
export const ManifestEntryMetadata = message("ManifestEntryMetadata", {
  id: scalar(1, "string"),
  modTimeNanos: scalar(2, "int64"),
  length: scalar(3, "int32"),
  labels: stringMap(4),
});

const Capacity = message("Capacity", { sizeB: scalar(1, "uint64"), freeB: scalar(2, "uint64") });

/** What a client sends. */
export const SessionRequest = message("SessionRequest", {
  requestId: scalar(1, "int64_number"),
  traceContext: stringMap(2),
  request: oneof({
    initializeSession: nested(
      10,
      message("InitializeSessionRequest", {
        purpose: scalar(1, "string"),
        readOnly: scalar(2, "bool"),
      }),
    ),
    getContentInfo: nested(
      11,
      message("GetContentInfoRequest", { contentId: scalar(1, "string") }),
    ),
    flush: nested(12, message("FlushRequest", {})),
    writeContent: nested(
      13,
      message("WriteContentRequest", {
        prefix: scalar(1, "string"),
        data: scalar(2, "bytes"),
        compression: scalar(3, "uint32"),
      }),
    ),
    getContent: nested(14, message("GetContentRequest", { contentId: scalar(1, "string") })),
    getManifest: nested(15, message("GetManifestRequest", { manifestId: scalar(1, "string") })),
    putManifest: nested(
      16,
      message("PutManifestRequest", { jsonData: scalar(1, "bytes"), labels: stringMap(2) }),
    ),
    findManifests: nested(
      17,
      message("FindManifestsRequest", { labels: stringMap(1), pageSize: scalar(2, "int32") }),
    ),
    deleteManifest: nested(
      18,
      message("DeleteManifestRequest", { manifestId: scalar(1, "string") }),
    ),
    prefetchContents: nested(
      19,
      message("PrefetchContentsRequest", {
        contentIds: repeated(scalar(1, "string")),
        hint: scalar(2, "string"),
      }),
    ),
    applyRetentionPolicy: nested(
      20,
      message("ApplyRetentionPolicyRequest", {
        sourcePath: scalar(1, "string"),
        reallyDelete: scalar(2, "bool"),
      }),
    ),
    sendNotification: nested(
      21,
      message("SendNotificationRequest", {
        templateName: scalar(1, "string"),
        eventArgs: scalar(2, "bytes"),
        severity: scalar(3, "int32"),
        eventArgsType: scalar(4, "enum"),
      }),
    ),
    getCapacity: nested(22, message("GetCapacityRequest", {})),
  }),
});

/** What a server sends. */
export const SessionResponse = message("SessionResponse", {
  requestId: scalar(1, "int64_number"),
  hasMore: scalar(3, "bool"),
  response: oneof({
    error: nested(2, ErrorResponse),
    initializeSession: nested(
      10,
      message("InitializeSessionResponse", { parameters: nested(1, RepositoryParametersMessage) }),
    ),
    getContentInfo: nested(
      11,
      message("GetContentInfoResponse", { info: nested(1, ContentInfoMessage) }),
    ),
    flush: nested(12, message("FlushResponse", {})),
    writeContent: nested(
      13,
      message("WriteContentResponse", { contentId: scalar(1, "string") }),
    ),
    getContent: nested(14, message("GetContentResponse", { data: scalar(1, "bytes") })),
    getManifest: nested(
      15,
      message("GetManifestResponse", {
        jsonData: scalar(1, "bytes"),
        metadata: nested(2, ManifestEntryMetadata),
      }),
    ),
    putManifest: nested(16, message("PutManifestResponse", { manifestId: scalar(1, "string") })),
    findManifests: nested(
      17,
      message("FindManifestsResponse", { metadata: repeated(nested(1, ManifestEntryMetadata)) }),
    ),
    deleteManifest: nested(18, message("DeleteManifestResponse", {})),
    prefetchContents: nested(
      19,
      message("PrefetchContentsResponse", { contentIds: repeated(scalar(1, "string")) }),
    ),
    applyRetentionPolicy: nested(
      20,
      message("ApplyRetentionPolicyResponse", { manifestIds: repeated(scalar(1, "string")) }),
    ),
    sendNotification: nested(21, message("SendNotificationResponse", {})),
    getCapacity: nested(22, message("GetCapacityResponse", { capacity: nested(1, Capacity) })),
  }),
});
