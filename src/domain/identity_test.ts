/**
 * Certificates name one user of one cluster, and a name is always safe as a path component.
 *
 * @module
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { findAppError, isKind } from "../base/failure.ts";
import { authorize, checkClusterName, isName, parseIdentity } from "./identity.ts";

const GOOD = ["a", "A9", "main", "pg-1", "a.b_c-d", "0", "x".repeat(253)];
const BAD = [
  "",
  ".",
  "..",
  ".a",
  "-a",
  "_a",
  "a/b",
  "a\\b",
  "a b",
  "a\0",
  "a\n",
  "ä",
  "a@b",
  "x".repeat(254),
];

Deno.test("isName() and checkClusterName() accept names and refuse everything with a meaning in paths", () => {
  for (const name of GOOD) {
    assert.ok(isName(name), name);
    checkClusterName(name);
  }
  for (const name of BAD) {
    assert.ok(!isName(name), JSON.stringify(name));
    assert.throws(() => checkClusterName(name), (error) => isKind(error, "usage"));
  }
});

Deno.test("property: a name that is accepted stays below the directory it is joined to", () => {
  fc.assert(fc.property(fc.string({ unit: "binary-ascii" }), (name) => {
    if (!isName(name)) return;
    assert.equal(new URL(name, "file:///srv/wal/").pathname, `/srv/wal/${name}`);
  }));
});

Deno.test("parseIdentity() takes user@cluster apart and refuses any other form with a hint", () => {
  assert.deepEqual(parseIdentity("klio@main"), { user: "klio", cluster: "main" });
  for (
    const wrong of ["", "klio", "@main", "klio@", "klio@main@x", "klio@..", "../x@main", "a b@c"]
  ) {
    assert.throws(() => parseIdentity(wrong), (error) => {
      const found = findAppError(error);
      return found?.kind === "permission" && found.hint !== undefined &&
        found.message.includes(`"CN=${wrong}"`);
    }, wrong);
  }
});

Deno.test("authorize() lets an identity act for exactly its own cluster", () => {
  const identity = parseIdentity("klio@main");
  authorize(identity, "main");
  for (const cluster of ["Main", "main2", "mai", ""]) {
    assert.throws(() => authorize(identity, cluster), (error) => isKind(error, "permission"));
  }
});
