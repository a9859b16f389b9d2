/**
 * Runs the contract suite of repository sessions through our client and our server over real sockets.
 *
 * @module
 */

import { SYSTEM_CLOCK } from "../../src/adapters/process/clock.ts";
import { BASE_MESSAGE_BYTES_MAX } from "../../src/adapters/grpc/options.ts";
import { openRepositorySession } from "../../src/adapters/grpc/repository_client.ts";
import { kopiaSessionService } from "../../src/rpc/kopia_session.ts";
import { MemoryRepository } from "../support/memory_repository.ts";
import { addressOf, clientCertificate, startServer } from "../support/network.ts";
import { testRepositorySession } from "./repository_session_suite.ts";

const waiting = { signal: new AbortController().signal };

testRepositorySession("network", async () => {
  const repository = new MemoryRepository();
  const service = kopiaSessionService(({ user, cluster }) =>
    Promise.resolve(repository.openSession({ user, host: cluster }))
  );
  const server = await startServer([service], { messageBytesMax: BASE_MESSAGE_BYTES_MAX });
  return {
    openSession: ({ user, host }) =>
      openRepositorySession({
        server: addressOf(server.port, { certificate: clientCertificate(`${user}@${host}`) }),
        purpose: "test",
        clock: SYSTEM_CLOCK,
      }, waiting),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
});
