import assert from "node:assert/strict";
import { assert as invariant } from "../base/assert.ts";
import { AppError, FAILURES } from "../base/failure.ts";
import { statusOf } from "./status.ts";

Deno.test("statusOf() gives every kind its code, kind and hint", () => {
  for (const kind of Object.keys(FAILURES) as Array<keyof typeof FAILURES>) {
    const error = new AppError(kind, "Do: it", { hint: "grün 100%", cause: new Error("why") });
    assert.deepEqual(statusOf(error), {
      code: FAILURES[kind].grpc,
      message: "Do: it: why",
      trailers: { "klio-kind": kind, "klio-hint": "gr%C3%BCn%20100%25" },
    });
  }
});

Deno.test("statusOf() tells nothing of what is no AppError", () => {
  let assertion: unknown;
  try {
    invariant(false, "a secret holds");
  } catch (error) {
    assertion = error;
  }
  for (const error of [new TypeError("secret"), assertion, "secret"]) {
    assert.deepEqual(statusOf(error), {
      code: 13,
      message: "Serve call: internal error",
      trailers: { "klio-kind": "bug" },
    });
  }
});

Deno.test("statusOf() keeps headers short and well formed", () => {
  const long = "x".repeat(1999) + "\u{1F600}" + "y".repeat(100_000);
  const { message, trailers } = statusOf(new AppError("usage", long, { hint: long }));
  assert.equal(message.length, 2000);
  assert.ok(message.isWellFormed());
  assert.equal(trailers["klio-hint"]?.length, 1000);
});
