/**
 * The table of who may do what with a manifest.
 *
 * @module
 */

import assert from "node:assert/strict";
import { isKind } from "../../base/failure.ts";
import type { Labels } from "../../ports/repository_session.ts";
import { manifestAccess, requireContentPrefix, requireFull, requireRead } from "./authorization.ts";

const OWNER = { user: "klio", host: "cluster-a" };
const OWN = { username: "klio", hostname: "cluster-a" };

Deno.test("manifestAccess() isolates hosts and lets only snapshots and policies be owned", () => {
  const cases: ReadonlyArray<readonly [Labels, string]> = [
    [{ type: "snapshot", ...OWN, path: "/x" }, "full"],
    [{ type: "policy", policyType: "path", ...OWN, path: "/x" }, "full"],
    [{ type: "policy", policyType: "user", ...OWN }, "full"],
    [{ type: "policy", policyType: "host", hostname: "cluster-a" }, "read"],
    [{ type: "policy", policyType: "global" }, "read"],
    [{ type: "policy", policyType: "global", ...OWN }, "read"],
    [{ type: "snapshot", ...OWN, username: "other" }, "read"],
    [{ type: "snapshot", hostname: "cluster-a" }, "read"],
    [{ type: "snapshot", ...OWN, hostname: "cluster-b" }, "none"],
    [{ type: "snapshot", ...OWN, hostname: "cluster-A" }, "none"],
    [{ type: "snapshot", username: "klio" }, "none"],
    [{ type: "policy", policyType: "host", hostname: "cluster-b" }, "none"],
    [{ type: "user", ...OWN }, "none"],
    [{ type: "acl", ...OWN }, "none"],
    [{ type: "maintenance", ...OWN }, "none"],
    [{ ...OWN }, "none"],
    [{}, "none"],
  ];
  for (const [labels, wanted] of cases) {
    assert.equal(manifestAccess(OWNER, labels), wanted, JSON.stringify(labels));
  }
});

Deno.test("requireRead(), requireFull() and requireContentPrefix() refuse with permission", () => {
  const foreign = { type: "snapshot", username: "klio", hostname: "cluster-b" };
  const readable = { type: "snapshot", username: "other", hostname: "cluster-a" };
  const own = { type: "snapshot", ...OWN };
  requireRead(OWNER, readable);
  requireFull(OWNER, own);
  for (const prefix of ["", "g", "k", "l", "n", "x", "z"]) requireContentPrefix(OWNER, prefix);
  const refused = (e: unknown) => isKind(e, "permission");
  assert.throws(() => requireRead(OWNER, foreign), refused);
  assert.throws(() => requireFull(OWNER, readable), refused);
  assert.throws(() => requireContentPrefix(OWNER, "m"), refused);
  assert.throws(
    () => requireFull(OWNER, foreign),
    { message: /"type=snapshot username=klio hostname=cluster-b" as "klio@cluster-a"/ },
  );
});
