import assert from "node:assert/strict";
import { connect, createServer, type Socket } from "node:net";
import { AppError, isKind } from "../../base/failure.ts";
import { viewOf } from "../../base/bytes.ts";
import { READ_AHEAD_BYTES_MAX, ReplicationWire } from "./replication_wire.ts";
import { checkVersion } from "./sql_connection.ts";

const signal = new AbortController().signal;
const CHUNK_BYTES_MAX = 1 << 16;

/** A wire and the peer at its other end. */
async function pair(): Promise<
  { wire: ReplicationWire; socket: Socket; peer: Socket } & AsyncDisposable
> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  const arrived = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const socket = connect({ host: "127.0.0.1", port: address.port });
  const peer = await arrived;
  peer.on("error", () => {/* the wire may go away first */});
  const wire = new ReplicationWire(socket);
  return {
    wire,
    socket,
    peer,
    async [Symbol.asyncDispose]() {
      peer.destroy();
      await wire[Symbol.asyncDispose]();
      await wire[Symbol.asyncDispose]();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** An XLogData with this many zero bytes. */
function xlogData(sizeBytes: number): Uint8Array {
  const message = new Uint8Array(5 + 25 + sizeBytes);
  message[0] = 0x64;
  viewOf(message).setUint32(1, 4 + 25 + sizeBytes);
  message[5] = 0x77;
  return message;
}

Deno.test("ReplicationWire stops reading when nobody takes what it has read, and goes on afterwards", async () => {
  await using both = await pair();
  const { wire, socket, peer } = both;
  const paused = new Promise<void>((resolve) => socket.once("pause", () => resolve()));
  const sizeBytes = 12 << 20;
  peer.write(xlogData(sizeBytes));
  await paused;
  assert.ok(peer.writableLength > 0, "the sender is held up");
  assert.ok(socket.bytesRead <= READ_AHEAD_BYTES_MAX + 2 * CHUNK_BYTES_MAX);
  let bytes = 0;
  while (bytes < sizeBytes) {
    for (const message of await wire.read({ signal }) ?? assert.fail("ended")) {
      if (message.kind === "data") bytes += message.bytes.length;
    }
  }
  assert.equal(bytes, sizeBytes);
});

Deno.test("ReplicationWire.read() gives up on an abort without losing anything, and tells the end", async () => {
  await using both = await pair();
  const { wire, peer } = both;
  const stop = new AbortController();
  const reading = wire.read(stop);
  const enough = new AppError("cancelled", "enough");
  stop.abort(enough);
  await assert.rejects(reading, enough);
  peer.end(xlogData(3));
  assert.equal((await wire.read({ signal }))?.[0]?.kind, "data");
  assert.equal(await wire.read({ signal }), undefined);
});

Deno.test("ReplicationWire passes on garbage and a broken connection as failures", async () => {
  await using garbage = await pair();
  garbage.peer.write("HTTP/1.1 400 Bad Request\r\n\r\n");
  await assert.rejects(garbage.wire.read({ signal }), (e) => isKind(e, "protocol"));
  await using broken = await pair();
  broken.wire.destroy();
  assert.equal(await broken.wire.read({ signal }), undefined);
  await assert.rejects(broken.wire.write(new Uint8Array(1)), (e) => isKind(e, "source"));
});

Deno.test("checkVersion() reads PostgreSQL's versions and refuses those before 15", () => {
  assert.equal(checkVersion("15.13 (Debian 15.13-0+deb12u1)"), 150_013);
  assert.equal(checkVersion("18beta1"), 180_000);
  for (const old of ["14.20", "9.6.24", ""]) {
    assert.throws(() => checkVersion(old), (e) => isKind(e, "source"));
  }
});
