/**
 * The WAL archive as the server side of the network sees it: all of {@link WalServer}, implemented by
 * `features/walarchive`, plus the upload of whole files. The caller has already checked that the client
 * may act for the cluster and that names are well formed.
 *
 * @module
 */

import type { Waiting } from "../base/abort.ts";
import type { WalServer } from "./wal_server.ts";

/** One whole file or the first part of one, as `klio.wal.v1` Put sends it. */
export interface WalFileUpload {
  readonly cluster: string;
  /** Segment, `.partial`-less, or history or backup label name. */
  readonly name: string;
  /** Size that the file has when whole; fewer bytes leave a partial. */
  readonly segmentSizeBytes: number;
  /**
   * The content in order; a block is borrowed until the next one is asked for. Throws what broke the upload: what arrived
   * before is then kept as a partial, as far as it is worth keeping, and the failure is rethrown.
   */
  readonly blocks: AsyncIterable<Uint8Array>;
}

/** See the module comment. */
export interface WalArchivePort extends WalServer {
  /**
   * Stores a file and resolves when it is durable. The same content again is success; another content under a complete
   * name is `conflict`; a shorter partial never replaces a longer one.
   */
  putFile(request: WalFileUpload, options: Waiting): Promise<{ readonly writtenBytes: number }>;
}
