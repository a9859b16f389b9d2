import assert from "node:assert/strict";
import fc from "fast-check";
import { fromUtf8, utf8 } from "../../base/bytes.ts";
import { isKind } from "../../base/failure.ts";
import { decodeSessionMarker, encodeSessionMarker } from "./session_marker.ts";

const MARKER = {
  sessionId: "s0123456789abcdef147",
  startNs: 1_735_787_045_123_456_789n,
  checkpointNs: 1_735_787_046_000_000_000n,
  user: "klio",
  host: "cluster",
};

Deno.test("a session marker is the document stock writes and is read back", () => {
  const bytes = encodeSessionMarker(MARKER);
  assert.equal(
    fromUtf8(bytes),
    '{"id":"s0123456789abcdef147","startTime":"2025-01-02T03:04:05.123456789Z",' +
      '"checkpointTime":"2025-01-02T03:04:06Z","username":"klio","hostname":"cluster"}',
  );
  assert.deepEqual(decodeSessionMarker(bytes), MARKER);
});

Deno.test("decodeSessionMarker() gives only corruption or protocol for garbage", () => {
  const expected = (e: unknown) => isKind(e, "corruption") || isKind(e, "protocol");
  const refused = (bytes: Uint8Array) => assert.throws(() => decodeSessionMarker(bytes), expected);
  const bytes = encodeSessionMarker(MARKER);
  for (let end = 0; end < bytes.length; end++) refused(bytes.subarray(0, end));
  fc.assert(fc.property(fc.uint8Array(), refused));
  fc.assert(fc.property(fc.jsonValue(), (value) => refused(utf8(JSON.stringify(value)))));
  refused(utf8(fromUtf8(bytes).replace("2025-01-02T03:04:06Z", "yesterday")));
  refused(encodeSessionMarker({ ...MARKER, host: "x".repeat(1 << 16) }));
});
