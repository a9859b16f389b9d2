import assert from "node:assert/strict";
import { AppError } from "../base/failure.ts";
import { parseCount, parseMappings, parseOwner, splitHostPort } from "./arguments.ts";

function refuses(action: () => unknown, message: RegExp): void {
  assert.throws(
    action,
    (error: unknown) =>
      error instanceof AppError && error.kind === "usage" && message.test(error.message),
  );
}

Deno.test("parseCount() takes whole numbers within bounds", () => {
  const bounds = { min: 1, max: 300 };
  assert.equal(parseCount("--n", "300", bounds), 300);
  for (const text of ["0", "301", "1.5", "-1", "", "1e2", "0x10"]) {
    refuses(() => parseCount("--n", text, bounds), /--n ".*": wanted a whole number from 1 to 300/);
  }
});

Deno.test("parseOwner() takes UID:GID", () => {
  assert.deepEqual(parseOwner("--owner", "26:27"), { uid: 26, gid: 27 });
  for (const text of ["26", "postgres:postgres", "1:2:3", ":", ""]) {
    refuses(() => parseOwner("--owner", text), /wanted UID:GID/);
  }
});

Deno.test("parseMappings() takes NAME=DIR once per name", () => {
  assert.deepEqual([...parseMappings("--t", ["a=/x", "b=/y=z"])], [["a", "/x"], ["b", "/y=z"]]);
  refuses(() => parseMappings("--t", ["a=/x", "a=/y"]), /"a" is given twice/);
  for (const text of ["a", "=b", "a="]) {
    refuses(() => parseMappings("--t", [text]), /wanted NAME=DIRECTORY/);
  }
});

Deno.test("splitHostPort() takes names, addresses and bracketed addresses", () => {
  assert.deepEqual(splitHostPort("localhost:52000"), { host: "localhost", port: 52000 });
  assert.deepEqual(splitHostPort("[::1]:0"), { host: "::1", port: 0 });
});
