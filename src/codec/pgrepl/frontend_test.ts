import assert from "node:assert/strict";
import { lsn } from "../../domain/lsn.ts";
import { encodeQuery, encodeStandbyStatus } from "./frontend.ts";
import { msFromPgTime, pgTimeFromMs } from "./pg_time.ts";

Deno.test("encodeQuery() frames the text and ends it with NUL", () => {
  assert.deepEqual(encodeQuery("é"), Uint8Array.of(0x51, 0, 0, 0, 7, 0xc3, 0xa9, 0));
  assert.throws(() => encodeQuery("a\0b"));
});

Deno.test("encodeStandbyStatus() has the layout of the manual", () => {
  const status = encodeStandbyStatus({
    write: lsn(0x0102030405060708n),
    flush: lsn(0x1112131415161718n),
    apply: lsn(0x2122232425262728n),
    replyRequested: true,
  }, Date.UTC(2000, 0, 1) + 1);
  assert.equal(
    status.toHex(),
    "6400000026" + "72" + "0102030405060708" + "1112131415161718" + "2122232425262728" +
      "00000000000003e8" + "01",
  );
});

Deno.test("pgTimeFromMs() and msFromPgTime() are inverse, before and after 2000", () => {
  assert.equal(pgTimeFromMs(Date.UTC(2000, 0, 1)), 0n);
  assert.equal(pgTimeFromMs(Date.UTC(1999, 11, 31, 23, 59, 59)), -1_000_000n);
  const now = Date.UTC(2026, 5, 1, 12, 34, 56, 789);
  assert.equal(msFromPgTime(pgTimeFromMs(now)), now);
});
