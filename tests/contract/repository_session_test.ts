/**
 * Runs the contract suite of repository sessions against the implementations of this process.
 *
 * @module
 */

import { openWithFormat } from "../../src/features/repository/repository.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { MemoryRepository } from "../support/memory_repository.ts";
import { copyRepositoryTemplate } from "../support/repository_template.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { testRepositorySession } from "./repository_session_suite.ts";

const waiting = { signal: new AbortController().signal };

testRepositorySession("MemoryRepository", () => {
  const repository = new MemoryRepository();
  return Promise.resolve({
    openSession: (owner) => Promise.resolve(repository.openSession(owner)),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
});

testRepositorySession("Repository", async () => {
  const { store, format } = await copyRepositoryTemplate();
  const deps = { store, clock: new FakeClock(), random: new SeededRandom(1) };
  const repository = await openWithFormat(deps, format, waiting);
  return {
    openSession: (owner) => repository.openSession({ ...owner, purpose: "test" }, waiting),
    [Symbol.asyncDispose]: () => repository.close(),
  };
});
