import assert from "node:assert/strict";
import { utf8 } from "../../src/base/bytes.ts";
import { AppError, describeError, failureKind, isKind } from "../../src/base/failure.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { openArchive, ROOT, volume, WHO } from "../support/wal_archive_world.ts";
import { baseSeed, fuzz, roundsOf, seedOf, type Target } from "./harness.ts";
import { KOPIA_TARGETS } from "./kopia_targets.ts";
import { mutate } from "./mutate.ts";
import { decompressBomb, WAL_TARGETS } from "./wal_targets.ts";
import { decodeWalBomb, WIRE_TARGETS } from "./wire_targets.ts";

const TARGETS = [...WIRE_TARGETS, ...WAL_TARGETS, ...KOPIA_TARGETS];

Deno.test("decoders of foreign bytes fail in good order, in bounded time and memory", async (t) => {
  const seed = baseSeed();
  // deno-lint-ignore no-console
  console.log(`fuzz seed: KLIO_TEST_SEED=${seed}`);
  for (const target of TARGETS) await t.step(target.name, () => fuzz(target, seed));
});

Deno.test("the harness sees a crash, a wrong kind, a refused sample and a bloated result", async () => {
  const sample = Uint8Array.of(1, 2, 3, 4);
  const target: Target = { name: "toy", kinds: ["protocol"], samples: [sample], decode: () => 0 };
  const broken: ReadonlyArray<readonly [Target["decode"], RegExp]> = [
    [(input) => input[0] === 1 ? 0 : missing(), /another error/],
    [(input) => input[0] === 1 ? 0 : refuse("bug"), /got bug/],
    [() => refuse("protocol"), /refuses its sample/],
    [(input) => input[3] === 4 ? 0 : 1 << 30, /the result has/],
  ];
  await fuzz(target, 1);
  for (const [decode, message] of broken) {
    await assert.rejects(fuzz({ ...target, decode }, 1), message);
  }
});

function missing(): never {
  throw new TypeError("there is no such byte");
}

function refuse(kind: "bug" | "protocol"): never {
  throw new AppError(kind, "Decode toy: refused");
}

Deno.test("a WAL unit that inflates to more than it says is refused before it is inflated", () => {
  for (const bomb of [decodeWalBomb, decompressBomb]) {
    assert.throws(bomb, (error) => {
      // Not refused for what it looks like, but for what would come out of it.
      assert.match(describeError(error), /zstd frame is damaged/);
      return isKind(error, "corruption");
    });
  }
});

Deno.test("the state of a cluster on disk is read, or is corruption, whatever stands in it", async () => {
  const files = await volume();
  await using archive = await openArchive(files);
  const signal = AbortSignal.any([]);
  const proposal = "000000010000000000000005";
  await archive.requestStart({ ...WHO, proposal }, { signal });
  const path = `${ROOT}/${WHO.cluster}/cluster.json`;
  const gap = { recordedAtMs: 1, start: proposal, end: "000000010000000000000009" };
  const sample = utf8(
    JSON.stringify({ version: 1, ...WHO, segmentSizeBytes: 1 << 20, gaps: [gap, gap] }),
  );
  const base = baseSeed();
  const kinds = new Set<string>();
  for (let round = 0; round < roundsOf(10); round++) {
    const seed = seedOf(base, round);
    const random = new SeededRandom(seed);
    await files.writeFileAtomic(path, mutate(random, sample, sample));
    try {
      const { gaps } = await archive.metadata(WHO.cluster, { signal });
      assert.ok(gaps.length < 10);
      kinds.add("ok");
    } catch (error) {
      assert.equal(failureKind(error), "corruption", `KLIO_TEST_SEED=${seed}: ${String(error)}`);
      kinds.add("corruption");
    }
  }
  assert.deepEqual([...kinds].sort(), ["corruption", "ok"]);
});
