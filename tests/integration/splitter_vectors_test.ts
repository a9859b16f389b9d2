/**
 * The published vectors of Kopia's splitters (its `splitter_test.go`): 5,000,000 bytes of Go's `math/rand` with seed 5. Only Go
 * can make these bytes, so without it this does not run; `splitter_test.ts` has cut lists that need no Go.
 *
 * @module
 */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { BuzhashSplitter } from "../../src/codec/kopia/splitter.ts";
import { reportNoGo } from "../support/stock_kopia.ts";

const PROGRAM = `package main

import (
	"math/rand"
	"os"
)

func main() {
	data := make([]byte, 5000000)
	rand.New(rand.NewSource(5)).Read(data)
	os.Stdout.Write(data)
}
`;

const SHA256 = "d420cd9782f8d6444e15f6678036cf2677dab335327ab73a98d38fb19d2cfd6f";

/** Average: count, mean, least and most bytes of the pieces; the rest after the last cut is no piece. */
const VECTORS: ReadonlyArray<readonly [number, readonly [number, number, number, number]]> = [
  [32, [124235, 40, 16, 64]],
  [1024, [3835, 1303, 512, 2048]],
  [2048, [1924, 2598, 1024, 4096]],
  [32768, [112, 44642, 16413, 65536]],
  [65536, [57, 87719, 32932, 131072]],
];

async function goRandomBytes(): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const directory = await Deno.makeTempDir({ prefix: "klio-test-" });
  try {
    await Deno.writeTextFile(`${directory}/main.go`, PROGRAM);
    const command = new Deno.Command("go", {
      args: ["run", "main.go"],
      cwd: directory,
      stdout: "piped",
      stderr: "inherit",
    });
    const { success, stdout } = await command.output();
    assert.ok(success, "go run succeeds");
    return stdout;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("BuzhashSplitter gives the published vectors of kopia", async () => {
  const data = await goRandomBytes();
  if (data === undefined) return reportNoGo();
  assert.equal(createHash("sha256").update(data).digest("hex"), SHA256);
  for (const [averageBytes, expected] of VECTORS) {
    const splitter = new BuzhashSplitter(averageBytes);
    const lengths: number[] = [];
    let at = 0;
    for (let cut = splitter.next(data); cut >= 0; cut = splitter.next(data.subarray(at))) {
      lengths.push(cut);
      at += cut;
    }
    const mean = Math.floor(data.length / lengths.length);
    const sorted = lengths.toSorted((a, b) => a - b);
    const [least, most] = [sorted[0], sorted.at(-1)];
    assert.deepEqual([lengths.length, mean, least, most], expected, `average ${averageBytes}`);
  }
});
