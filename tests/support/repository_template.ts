/**
 * An empty repository to copy: creating one and opening it by password takes most of a second (that is the point of a
 * password hash), so the tests of one process share the result and only copy the store.
 *
 * @module
 */

import { decodeFormatBlob, type RepositoryFormat } from "../../src/codec/kopia/format.ts";
import { createRepository } from "../../src/features/repository/mod.ts";
import { FakeClock } from "./fake_clock.ts";
import { MemoryBlobStore } from "./memory_blob_store.ts";
import { SeededRandom } from "./seeded_random.ts";

/** Password of the template. */
export const TEMPLATE_PASSWORD = "a password";

interface Template {
  readonly store: MemoryBlobStore;
  readonly format: RepositoryFormat;
}

let template: Promise<Template> | undefined;

/** A store of its own that holds an empty repository, and its format for `openWithFormat`. */
export async function copyRepositoryTemplate(): Promise<Template> {
  template ??= create();
  const { store, format } = await template;
  return { store: store.copy(), format };
}

async function create(): Promise<Template> {
  const waiting = { signal: new AbortController().signal };
  const store = new MemoryBlobStore();
  const random = new SeededRandom(1);
  await createRepository(
    { store, clock: new FakeClock(), random, password: TEMPLATE_PASSWORD },
    waiting,
  );
  const blob = await store.get("kopia.repository", waiting);
  return { store, format: decodeFormatBlob(blob, TEMPLATE_PASSWORD) };
}
