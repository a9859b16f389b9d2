/**
 * Client of a Klio WAL server: appends by `klio.stream.v1` where the server knows it, everything else by `klio.wal.v1`, over
 * one connection. A server is asked anew for each stream, since it may have been upgraded.
 *
 * @module
 */

import type { Waiting } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/failure.ts";
import {
  PutHistoryRequest,
  PutHistoryResponse,
  STREAM_SERVICE,
} from "../../codec/messages/stream.ts";
import {
  CloseBackupRequest,
  CloseBackupResult,
  ClusterMetadata,
  GetMetadataRequest,
  GetRequest,
  GetResult,
  RequestWalStartRequest,
  RequestWalStartResult,
  ResetWalStreamRequest,
  ResetWalStreamResult,
  WAL_SERVICE,
} from "../../codec/messages/wal.ts";
import { decode } from "../../codec/protobuf/decode.ts";
import { encode } from "../../codec/protobuf/encode.ts";
import type { MessageValue } from "../../codec/protobuf/schema.ts";
import { parseWalName } from "../../domain/lsn.ts";
import type {
  BackupWalRange,
  ClusterWalMetadata,
  WalAppendStream,
  WalFileStream,
  WalServer,
} from "../../ports/wal_server.ts";
import { Channel, type ClientCall, type ServerAddress } from "./channel.ts";
import { UNIMPLEMENTED } from "./errors.ts";
import { type Keepalive, WAL_MESSAGE_BYTES_MAX } from "./options.ts";
import { openAppendStream } from "./wal_append_client.ts";
import { PutAppendStream, putHistoryFile } from "./wal_put_client.ts";

/** What a client needs. */
export interface WalClientOptions {
  readonly server: ServerAddress;
  readonly clock: Clock;
  /** Default {@link KEEPALIVE_DEFAULT}. */
  readonly keepalive?: Keepalive;
}

/** See the module comment. Connects when first used, and again after a failure. */
export class WalClient implements WalServer, Disposable {
  readonly #channel: Channel;

  /** Throws `config` or `permission` for unusable TLS material. */
  constructor(options: WalClientOptions) {
    this.#channel = new Channel({ ...options, messageBytesMax: WAL_MESSAGE_BYTES_MAX });
  }

  async requestStart(
    request: Parameters<WalServer["requestStart"]>[0],
    options: Waiting,
  ): Promise<string> {
    const message = encode(RequestWalStartRequest, startRequest(request));
    const response = await this.#wal("RequestWALStart", message, options);
    return parseAnswer(decode(RequestWalStartResult, response).walName);
  }

  async resetStream(
    request: Parameters<WalServer["resetStream"]>[0],
    options: Waiting,
  ): Promise<string> {
    const message = encode(ResetWalStreamRequest, startRequest(request));
    const response = await this.#wal("ResetWALStream", message, options);
    return parseAnswer(decode(ResetWalStreamResult, response).walName);
  }

  async append(
    request: Parameters<WalServer["append"]>[0],
    options: Waiting,
  ): Promise<WalAppendStream> {
    try {
      return await openAppendStream(this.#channel, request, options);
    } catch (error) {
      if (!isUnimplemented(error)) throw error;
      return new PutAppendStream(this.#channel, request);
    }
  }

  async putHistory(
    request: Parameters<WalServer["putHistory"]>[0],
    options: Waiting,
  ): Promise<void> {
    const message = encode(PutHistoryRequest, {
      clusterName: request.cluster,
      systemId: request.systemId,
      timeline: request.timeline,
      content: request.content,
    });
    const method = `/${STREAM_SERVICE}/PutHistory`;
    try {
      decode(PutHistoryResponse, await this.#channel.unary(method, message, options));
    } catch (error) {
      if (!isUnimplemented(error)) throw error;
      await putHistoryFile(this.#channel, request, options);
    }
  }

  async get(
    request: Parameters<WalServer["get"]>[0],
    options: Waiting,
  ): Promise<WalFileStream> {
    const call = this.#channel.open(`/${WAL_SERVICE}/Get`, options);
    try {
      await call.send(
        encode(GetRequest, { clusterName: request.cluster, walName: request.name }),
        options,
      );
      call.halfClose();
      const first = await receiveBlock(call, options);
      if (first === undefined) throw new AppError("protocol", `Get "${request.name}": no answer`);
      return { segmentSizeBytes: first.segmentSize, blocks: blocksOf(call, first, options) };
    } catch (error) {
      call.cancel();
      throw error;
    }
  }

  async metadata(cluster: string, options: Waiting): Promise<ClusterWalMetadata> {
    const request = encode(GetMetadataRequest, { clusterName: cluster });
    const { systemId, gaps } = decode(
      ClusterMetadata,
      await this.#wal("GetMetadata", request, options),
    );
    return {
      systemId,
      gaps: gaps.map(({ ts, start, end }) => ({
        recordedAtMs: ts === undefined ? 0 : ts.seconds * 1000 + Math.floor(ts.nanos / 1_000_000),
        start,
        end,
      })),
    };
  }

  async closeBackup(range: BackupWalRange, options: Waiting): Promise<readonly string[]> {
    const request = encode(CloseBackupRequest, {
      clusterName: range.cluster,
      backupName: range.backupName,
      timeline: range.timeline | 0, // int32 on the wire, unsigned in PostgreSQL
      startWal: range.startWal,
      endWal: range.endWal,
      segmentSize: range.segmentSizeBytes,
    });
    const response = await this.#wal("CloseBackup", request, options);
    return decode(CloseBackupResult, response).missingWalFiles;
  }

  /** Closes the connection; calls that still run end with `cancelled`. */
  [Symbol.dispose](): void {
    this.#channel[Symbol.dispose]();
  }

  #wal(
    method: string,
    request: Uint8Array<ArrayBuffer>,
    options: Waiting,
  ): Promise<Uint8Array<ArrayBuffer>> {
    return this.#channel.unary(`/${WAL_SERVICE}/${method}`, request, options);
  }
}

/** The common shape of the two requests about where to start. */
function startRequest(
  { cluster, systemId, proposal }: Parameters<WalServer["requestStart"]>[0],
): {
  readonly clusterName: string;
  readonly systemId: string;
  readonly currentWalName: string;
} {
  return { clusterName: cluster, systemId, currentWalName: proposal };
}

/** The server's answer must be a name; servers may add `.partial`, which the answer's name does not have. */
function parseAnswer(walName: string): string {
  try {
    return parseWalName(walName).name;
  } catch (cause) {
    throw new AppError("protocol", `Ask where to start: the server answered "${walName}"`, {
      cause,
    });
  }
}

type Block = MessageValue<typeof GetResult>;

async function receiveBlock(call: ClientCall, options: Waiting): Promise<Block | undefined> {
  const message = await call.receive(options);
  return message === undefined ? undefined : decode(GetResult, message);
}

/** Leaving the loop early cancels the call. */
async function* blocksOf(
  call: ClientCall,
  first: Block,
  options: Waiting,
): AsyncGenerator<Uint8Array> {
  try {
    let last = first;
    for (
      let block: Block | undefined = first;
      block !== undefined;
      block = await receiveBlock(call, options)
    ) {
      last = block;
      if (block.walBlock.length > 0) yield block.walBlock;
    }
    if (last.walBlock.length > 0) {
      throw new AppError("protocol", "Get WAL file: the server ended without its end mark");
    }
  } finally {
    call.cancel();
  }
}

/** The server does not know the method. */
function isUnimplemented(error: unknown): boolean {
  return error instanceof AppError && error.data["grpc"] === UNIMPLEMENTED;
}
