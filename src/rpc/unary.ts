/**
 * Calls with a single request.
 *
 * @module
 */

import { AppError } from "../base/failure.ts";
import { decode } from "../codec/protobuf/decode.ts";
import type { MessageTable, MessageValue } from "../codec/protobuf/schema.ts";
import type { RpcCall } from "../ports/rpc.ts";

/** The one request of a call. Throws `protocol` when there is none. */
export async function receiveOnly<M extends MessageTable>(
  call: RpcCall,
  table: M,
): Promise<MessageValue<M>> {
  const message = await call.receive();
  if (message === undefined) {
    throw new AppError("protocol", `Receive ${table.name}: the client sent nothing`);
  }
  return decode(table, message);
}
