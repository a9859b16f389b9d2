import assert from "node:assert/strict";
import { timelineId } from "../domain/lsn.ts";
import type { CatalogBackup } from "../features/catalog/mod.ts";
import type { WalGap } from "../ports/wal_server.ts";
import { backupState } from "./backup_view.ts";

const signal = new AbortController().signal;
const name = (segment: number) => `0000000100000000000000${segment}`;
const BACKUP = {
  problems: [],
  metadata: {
    clusterName: "c",
    name: "b",
    timeline: timelineId(1),
    startWal: name(20),
    endWal: name(22),
    segmentSizeBytes: 1 << 24,
  },
} as unknown as CatalogBackup;
const gap = (start: string, end: string): WalGap => ({ recordedAtMs: 1, start, end });

function stateOf(missing: readonly string[], gaps: readonly WalGap[]): Promise<string> {
  const wal = {
    closeBackup: () => Promise.resolve(missing),
    metadata: () => Promise.resolve({ systemId: "1", gaps }),
  };
  return backupState(BACKUP, wal, { signal });
}

Deno.test("backupState() says no more than is true when WAL is lost", async () => {
  assert.equal(await stateOf([], []), "complete");
  assert.equal(await stateOf([name(22)], []), `waiting for WAL: 1 files, first ${name(22)}`);
  const within = gap(`${name(21)}.partial`, name(30));
  assert.equal(
    await stateOf([name(21), name(22)], [within]),
    `damaged: WAL is lost, first ${name(21)}`,
  );
  const after = gap(name(25), name(30));
  assert.equal(
    await stateOf([], [after]),
    `complete, recovery ends at the WAL gap after ${name(25)}`,
  );
  assert.equal(await stateOf([], [gap(name(10), name(15))]), "complete");
});
