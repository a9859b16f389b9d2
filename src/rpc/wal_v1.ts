/**
 * Serves `klio.wal.v1`, the WAL protocol of existing Klio clients. Stricter than existing servers where those are wrong:
 * names cannot leave a directory, the cluster must be the client's own in every message, and nothing is acknowledged before
 * it is durable. `SetFirstRequiredWAL` is not served: a client must not be able to delete WAL.
 *
 * @module
 */

import { AppError } from "../base/failure.ts";
import {
  CloseBackupRequest,
  CloseBackupResult,
  ClusterMetadata,
  GetMetadataRequest,
  GetRequest,
  GetResult,
  PutRequest,
  PutResult,
  RequestWalStartRequest,
  RequestWalStartResult,
  ResetWalStreamRequest,
  ResetWalStreamResult,
  WAL_SERVICE,
} from "../codec/messages/wal.ts";
import { decode } from "../codec/protobuf/decode.ts";
import { encode } from "../codec/protobuf/encode.ts";
import type { MessageValue } from "../codec/protobuf/schema.ts";
import { checkSegmentSize, parseWalName, timelineId } from "../domain/lsn.ts";
import type { RpcCall, RpcService } from "../ports/rpc.ts";
import type { WalArchivePort } from "../ports/wal_archive.ts";
import { checkCluster, checkSegmentName, checkSystemId } from "./checks.ts";
import { receiveOnly } from "./unary.ts";

/** Largest block in a message, both ways. */
const BLOCK_BYTES_MAX = 8 << 20;
/** Largest file that is no segment. */
const SMALL_FILE_BYTES_MAX = 1 << 20;

/** The service over an archive. */
export function walService(archive: WalArchivePort): RpcService {
  return {
    name: WAL_SERVICE,
    methods: {
      Put: (call) => put(archive, call),
      Get: (call) => get(archive, call),
      GetMetadata: (call) => getMetadata(archive, call),
      RequestWALStart: (call) => requestStart(archive, call),
      ResetWALStream: (call) => resetStream(archive, call),
      CloseBackup: (call) => closeBackup(archive, call),
    },
  };
}

type Put = MessageValue<typeof PutRequest>;

async function put(archive: WalArchivePort, call: RpcCall): Promise<void> {
  const first = await receivePut(call);
  if (first === undefined) return await call.send(encode(PutResult, {}));
  const name = parseWalName(first.walName);
  if (name.kind === "segment" && !name.partial) checkSegmentSize(first.segmentSize);
  else if (
    name.kind === "segment" || first.segmentSize < 1 || first.segmentSize > SMALL_FILE_BYTES_MAX
  ) {
    throw new AppError(
      "usage",
      `Store WAL file "${first.walName}" of ${first.segmentSize} bytes: wanted a segment by its complete name, or a small file`,
    );
  }
  const { writtenBytes } = await archive.putFile({
    cluster: first.clusterName,
    name: first.walName,
    segmentSizeBytes: first.segmentSize,
    blocks: blocksOf(call, first),
  }, { signal: call.signal });
  await call.send(encode(PutResult, { writtenSize: writtenBytes }));
}

async function* blocksOf(call: RpcCall, first: Put): AsyncGenerator<Uint8Array> {
  let sizeBytes = 0;
  for (let block: Put | undefined = first; block !== undefined; block = await receivePut(call)) {
    if (
      block.clusterName !== first.clusterName || block.walName !== first.walName ||
      block.segmentSize !== first.segmentSize
    ) {
      throw new AppError(
        "usage",
        `Store WAL file "${first.walName}": messages name different files`,
      );
    }
    sizeBytes += block.walBlock.length;
    if (sizeBytes > first.segmentSize) {
      throw new AppError(
        "usage",
        `Store WAL file "${first.walName}": more than ${first.segmentSize} bytes were sent`,
      );
    }
    if (block.walBlock.length > 0) yield block.walBlock; // existing clients end with an empty block
  }
}

async function receivePut(call: RpcCall): Promise<Put | undefined> {
  const message = await call.receive();
  if (message === undefined) return undefined;
  const request = decode(PutRequest, message);
  checkCluster(call.identity, request.clusterName);
  return request;
}

async function get(archive: WalArchivePort, call: RpcCall): Promise<void> {
  const request = await receiveOnly(call, GetRequest);
  const cluster = checkCluster(call.identity, request.clusterName);
  parseWalName(request.walName);
  const name = request.walName;
  const file = await archive.get({ cluster, name }, { signal: call.signal });
  const segmentSize = file.segmentSizeBytes;
  for await (const block of file.blocks) {
    for (let offset = 0; offset < block.length; offset += BLOCK_BYTES_MAX) {
      const walBlock = block.subarray(offset, offset + BLOCK_BYTES_MAX);
      await call.send(encode(GetResult, { walBlock, segmentSize }));
    }
  }
  // The end that existing clients wait for.
  await call.send(encode(GetResult, { segmentSize }));
}

async function getMetadata(archive: WalArchivePort, call: RpcCall): Promise<void> {
  const request = await receiveOnly(call, GetMetadataRequest);
  const cluster = checkCluster(call.identity, request.clusterName);
  const { systemId, gaps } = await archive.metadata(cluster, { signal: call.signal });
  await call.send(encode(ClusterMetadata, {
    systemId,
    gaps: gaps.map(({ recordedAtMs, start, end }) => ({
      ts: {
        seconds: Math.floor(recordedAtMs / 1000),
        nanos: Math.floor(recordedAtMs % 1000 * 1_000_000),
      },
      start,
      end,
    })),
  }));
}

async function requestStart(archive: WalArchivePort, call: RpcCall): Promise<void> {
  const request = await receiveOnly(call, RequestWalStartRequest);
  const walName = await archive.requestStart(streamStart(call, request), { signal: call.signal });
  await call.send(encode(RequestWalStartResult, { walName }));
}

async function resetStream(archive: WalArchivePort, call: RpcCall): Promise<void> {
  const request = await receiveOnly(call, ResetWalStreamRequest);
  const walName = await archive.resetStream(streamStart(call, request), { signal: call.signal });
  await call.send(encode(ResetWalStreamResult, { walName }));
}

function streamStart(
  call: RpcCall,
  request: {
    readonly clusterName: string;
    readonly systemId: string;
    readonly currentWalName: string;
  },
): { cluster: string; systemId: string; proposal: string } {
  return {
    cluster: checkCluster(call.identity, request.clusterName),
    systemId: checkSystemId(request.systemId),
    proposal: checkSegmentName(request.currentWalName),
  };
}

async function closeBackup(archive: WalArchivePort, call: RpcCall): Promise<void> {
  const request = await receiveOnly(call, CloseBackupRequest);
  const cluster = checkCluster(call.identity, request.clusterName);
  checkSegmentSize(request.segmentSize);
  const missingWalFiles = await archive.closeBackup({
    cluster,
    backupName: request.backupName,
    timeline: timelineId(request.timeline >>> 0), // int32 on the wire, unsigned in PostgreSQL
    startWal: checkSegmentName(request.startWal),
    endWal: checkSegmentName(request.endWal),
    segmentSizeBytes: request.segmentSize,
  }, { signal: call.signal });
  await call.send(encode(CloseBackupResult, { missingWalFiles }));
}
