/**
 * The failure table is complete and consistent, and any thrown thing finds its row.
 *
 * @module
 */

import assert from "node:assert/strict";
import { assert as klioAssert, AssertionFailure, unreachable } from "./assert.ts";
import {
  AppError,
  describeError,
  EXIT_WAL_NOT_FOUND,
  failureKind,
  FAILURES,
  findAppError,
  isKind,
} from "./failure.ts";

Deno.test("FAILURES: exit codes are those of sysexits or a signal, and only the plan's kinds share one", () => {
  const byExit = new Map<number, string[]>();
  for (const [kind, row] of Object.entries(FAILURES)) {
    assert.ok(row.exit >= 64 && row.exit <= 78 || row.exit === 130, `${kind} exits ${row.exit}`);
    assert.ok(row.grpc >= 1 && row.grpc <= 16, `${kind} maps to gRPC ${row.grpc}`);
    assert.ok(row.meaning !== "");
    byExit.set(row.exit, [...byExit.get(row.exit) ?? [], kind]);
  }
  const shared = [...byExit.values()].filter((kinds) => kinds.length > 1);
  assert.deepEqual(shared, [["not_found", "end_of_wal"], ["conflict", "exhausted", "timeout"]]);
  assert.deepEqual(
    [FAILURES.corruption.exit, FAILURES.source.exit, FAILURES.repository.exit, EXIT_WAL_NOT_FOUND],
    [65, 68, 69, 4],
  );
});

Deno.test("AppError carries kind, cause, hint and data, and nothing it was not given", () => {
  const cause = new Error("ECONNREFUSED");
  const full = new AppError("source", "Connect", { cause, hint: "start it", data: { port: 5432 } });
  assert.deepEqual(
    [full.name, full.kind, full.message, full.cause, full.hint, full.data],
    ["AppError", "source", "Connect", cause, "start it", { port: 5432 }],
  );
  const bare = new AppError("bug", "Oops");
  assert.deepEqual([bare.hint, bare.data, "cause" in bare], [undefined, {}, false]);
});

Deno.test("failureKind() finds the kind through causes, standard aborts and suppressed errors", () => {
  const inner = new AppError("corruption", "Bad checksum");
  const cases = [
    [inner, "corruption"],
    [new Error("wrapped", { cause: new Error("twice", { cause: inner }) }), "corruption"],
    [new AppError("repository", "outer wins", { cause: inner }), "repository"],
    [new AssertionFailure("x"), "bug"],
    [new DOMException("x", "TimeoutError"), "timeout"],
    [new DOMException("x", "AbortError"), "cancelled"],
    [new Error("foreign"), "bug"],
    ["a string", "bug"],
    [undefined, "bug"],
    [null, "bug"],
    [new SuppressedError(new Error("disposer"), inner), "corruption"],
    [
      new SuppressedError(1, new SuppressedError(2, new Error("x", { cause: inner }))),
      "corruption",
    ],
  ] as const;
  for (const [error, kind] of cases) {
    assert.equal(failureKind(error), kind, Deno.inspect(error));
    assert.ok(isKind(error, kind));
    assert.ok(!isKind(error, "usage"));
  }
});

Deno.test("failureKind() ends on a chain of causes that is a circle", () => {
  const [a, b] = [new Error("a"), new Error("b")];
  a.cause = b;
  b.cause = a;
  assert.equal(failureKind(a), "bug");
  assert.equal(describeError(a), "a: b");
});

Deno.test("findAppError() gives the outermost AppError or undefined", () => {
  const inner = new AppError("source", "x");
  assert.equal(findAppError(new Error("y", { cause: inner })), inner);
  assert.equal(findAppError(new Error("y")), undefined);
});

Deno.test("describeError() joins what each cause adds and repeats nothing", () => {
  const root = new Error("connection refused");
  const middle = new AppError("source", "Connect to db:5432: connection refused", { cause: root });
  assert.equal(
    describeError(new AppError("source", "Stream WAL", { cause: middle })),
    "Stream WAL: Connect to db:5432: connection refused",
  );
  assert.equal(describeError(new TypeError()), "TypeError");
  assert.equal(describeError("text"), "text");
  assert.equal(describeError(new Error("x", { cause: 42 })), "x: 42");
  assert.equal(describeError(undefined), "");
});

Deno.test("assert() and unreachable() throw AssertionFailure with the broken invariant", () => {
  klioAssert(true, "fine");
  assert.throws(() => klioAssert(0, "sizes are positive"), {
    name: "AssertionFailure",
    message: "Assertion failed: sizes are positive",
  });
  assert.throws(() => unreachable("x" as never, "state"), {
    name: "AssertionFailure",
    message: 'Assertion failed: unexpected state "x"',
  });
});
