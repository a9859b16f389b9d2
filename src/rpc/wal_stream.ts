/**
 * Serves `klio.stream.v1`: WAL in, durable positions out. What is acknowledged is what the archive acknowledged; this file
 * adds nothing to it and takes nothing from it. Bytes that the archive has no room for stay on the wire: it is asked to
 * take one message before the next is read.
 *
 * @module
 */

import { abortable } from "../base/abort.ts";
import type { Bytes } from "../base/bytes.ts";
import { AppError, isKind } from "../base/failure.ts";
import { TaskGroup } from "../base/task_group.ts";
import {
  type AppendData,
  AppendRequest,
  AppendResponse,
  PutHistoryRequest,
  PutHistoryResponse,
  STREAM_SERVICE,
} from "../codec/messages/stream.ts";
import { decode } from "../codec/protobuf/decode.ts";
import { encode } from "../codec/protobuf/encode.ts";
import { UNIT_WAL_BYTES_MAX } from "../codec/walfile/format.ts";
import { decompressUnit } from "../codec/walfile/unit_frame.ts";
import type { MessageValue } from "../codec/protobuf/schema.ts";
import { checkSegmentSize, lsn, segmentOffset, timelineId } from "../domain/lsn.ts";
import type { RpcCall, RpcService } from "../ports/rpc.ts";
import type { WalArchivePort } from "../ports/wal_archive.ts";
import type { WalAppendStream } from "../ports/wal_server.ts";
import { checkCluster, checkSystemId } from "./checks.ts";
import { receiveOnly } from "./unary.ts";

/** Timeline histories have a line per timeline: this is some thousand timelines. */
const HISTORY_BYTES_MAX = 1 << 20;

/** The service over an archive. */
export function walStreamService(archive: WalArchivePort): RpcService {
  return {
    name: STREAM_SERVICE,
    methods: {
      Append: (call) => append(archive, call),
      PutHistory: (call) => putHistory(archive, call),
    },
  };
}

async function append(archive: WalArchivePort, call: RpcCall): Promise<void> {
  const first = await receiveAppend(call);
  if (first?.kind !== "open") {
    throw new AppError("protocol", "Append WAL: the first message must open the stream");
  }
  const open = first.value;
  checkSegmentSize(open.segmentSize);
  const start = lsn(open.startLsn);
  if (segmentOffset(start, open.segmentSize) !== 0) {
    throw new AppError("usage", "Append WAL: the start must be the start of a segment");
  }
  await using stream = await archive.append({
    cluster: checkCluster(call.identity, open.clusterName),
    systemId: checkSystemId(open.systemId),
    timeline: timelineId(open.timeline),
    start,
    segmentSizeBytes: open.segmentSize,
  }, { signal: call.signal });
  await call.send(
    encode(AppendResponse, {
      response: { kind: "opened", value: { startLsn: stream.start } },
    }),
  );
  await using tasks = new TaskGroup(call.signal);
  tasks.start(async (signal) => {
    await forwardData(call, stream, signal);
    await stream.finish({ signal });
  });
  tasks.start((signal) => forwardAcknowledgements(call, stream, signal));
  await tasks.join();
}

async function forwardData(
  call: RpcCall,
  stream: WalAppendStream,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    // Not only the call may end this: when acknowledging fails, the client must hear of it now, not with its next message.
    const request = await abortable(receiveAppend(call), { signal });
    if (request === undefined) return;
    if (request.kind !== "data") {
      throw new AppError("protocol", "Append WAL: the stream is open already");
    }
    const { bytes, frame } = walOf(request.value);
    const options = frame === undefined ? { signal } : { signal, frame };
    await stream.send(lsn(request.value.lsn), bytes, options);
  }
}

/** The WAL in a message; decompressing a frame is what proves that it holds exactly this WAL. Throws `protocol`. */
function walOf(
  { data, size, zstd }: MessageValue<typeof AppendData>,
): { readonly bytes: Uint8Array; readonly frame: Uint8Array | undefined } {
  if (zstd.length === 0) return { bytes: data, frame: undefined };
  if (data.length > 0 || size === 0 || size > UNIT_WAL_BYTES_MAX) {
    throw new AppError(
      "protocol",
      `Append WAL: a message has ${data.length} plain and ${size} compressed bytes`,
    );
  }
  try {
    return { bytes: decompressUnit(zstd, size), frame: zstd };
  } catch (cause) {
    if (!isKind(cause, "corruption")) throw cause;
    throw new AppError("protocol", "Append WAL: compressed bytes are unusable", { cause });
  }
}

async function forwardAcknowledgements(
  call: RpcCall,
  stream: WalAppendStream,
  signal: AbortSignal,
): Promise<void> {
  const acknowledgements = stream.acknowledgements()[Symbol.asyncIterator]();
  for (;;) {
    const next = await abortable(acknowledgements.next(), { signal });
    if (next.done === true) return;
    const value = { durableLsn: next.value };
    await call.send(encode(AppendResponse, { response: { kind: "durable", value } }));
  }
}

type Append = NonNullable<MessageValue<typeof AppendRequest>["request"]>;

async function receiveAppend(call: RpcCall): Promise<Append | undefined> {
  const message: Bytes | undefined = await call.receive();
  if (message === undefined) return undefined;
  const { request } = decode(AppendRequest, message);
  if (request === undefined) throw new AppError("protocol", "Append WAL: unknown kind of message");
  return request;
}

async function putHistory(archive: WalArchivePort, call: RpcCall): Promise<void> {
  const request = await receiveOnly(call, PutHistoryRequest);
  if (request.content.length > HISTORY_BYTES_MAX) {
    throw new AppError(
      "exhausted",
      `Store timeline history: ${request.content.length} bytes, at most ${HISTORY_BYTES_MAX} are taken`,
    );
  }
  await archive.putHistory({
    cluster: checkCluster(call.identity, request.clusterName),
    systemId: checkSystemId(request.systemId),
    timeline: timelineId(request.timeline),
    content: request.content,
  }, { signal: call.signal });
  await call.send(encode(PutHistoryResponse, {}));
}
