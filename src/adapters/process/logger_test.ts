import assert from "node:assert/strict";
import { AppError } from "../../base/failure.ts";
import { FakeClock } from "../../../tests/support/fake_clock.ts";
import { createLogger, type LogFormat } from "./logger.ts";

function logger(format: LogFormat, level: "info" | "debug" = "info") {
  const lines: string[] = [];
  const log = createLogger({
    level,
    format,
    clock: new FakeClock(),
    podName: "cluster-1",
    write: (line) => lines.push(line),
  });
  return { log, lines };
}

Deno.test("createLogger() writes JSON lines with CloudNativePG's key names", () => {
  const { log, lines } = logger("json");
  log.with({ component: "server" }).info("Server is ready", { wal_lsn: 2n ** 63n, names: ["a"] });
  assert.equal(lines.length, 1);
  assert.ok(lines[0]?.endsWith("\n"));
  const { ts, ...rest } = JSON.parse(lines[0] ?? "");
  assert.match(ts, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  assert.deepEqual(rest, {
    level: "info",
    logger: "server",
    msg: "Server is ready",
    logging_pod: "cluster-1",
    wal_lsn: "9223372036854775808",
    names: ["a"],
  });
});

Deno.test("createLogger() tells an error with causes, kind and hint", () => {
  const { log, lines } = logger("json");
  const cause = new Error("ECONNREFUSED");
  log.error(
    "Command failed",
    {},
    new AppError("repository", "Connect to klio server", {
      cause,
      hint: "start it",
      data: { port: 1 },
    }),
  );
  const line = JSON.parse(lines[0] ?? "");
  assert.deepEqual([line.level, line.error, line.kind, line.hint, line.port], [
    "error",
    "Connect to klio server: ECONNREFUSED",
    "repository",
    "start it",
    1,
  ]);
});

Deno.test("createLogger() drops what is below its level", () => {
  const quiet = logger("json");
  quiet.log.debug("detail");
  assert.deepEqual(quiet.lines, []);
  const loud = logger("json", "debug");
  loud.log.debug("detail");
  assert.equal(loud.lines.length, 1);
});

Deno.test("createLogger() writes short lines for a person", () => {
  const { log, lines } = logger("text");
  log.warn("Failed, retrying", { component: "x", what: "a b", n: 1, none: undefined });
  assert.match(lines[0] ?? "", /^\d\d:\d\d:\d\d warning x: Failed, retrying what="a b" n=1\n$/);
});
