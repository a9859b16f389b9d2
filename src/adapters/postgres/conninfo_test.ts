import assert from "node:assert/strict";
import { isKind } from "../../base/failure.ts";
import { formatConnectionString, parseConnectionString } from "./conninfo.ts";

const DEFAULTS = {
  host: "localhost",
  port: 5432,
  user: "postgres",
  database: "postgres",
  password: undefined,
  applicationName: undefined,
  sslMode: "prefer",
  sslRootCert: undefined,
  sslCert: undefined,
  sslKey: undefined,
  connectTimeoutMs: 30_000,
};

Deno.test("parseConnectionString() reads the keyword form", () => {
  assert.deepEqual(parseConnectionString(""), DEFAULTS);
  assert.deepEqual(
    parseConnectionString(
      "host=/controller/run  user = o-k password='a\\'b\\\\ c' port=5433 dbname=d",
    ),
    {
      ...DEFAULTS,
      host: "/controller/run",
      user: "o-k",
      password: "a'b\\ c",
      port: 5433,
      database: "d",
    },
  );
  assert.deepEqual(
    parseConnectionString(
      "sslmode=verify-full sslrootcert=/ca.pem connect_timeout=3 application_name=a",
    ),
    {
      ...DEFAULTS,
      sslMode: "verify-full",
      sslRootCert: "/ca.pem",
      connectTimeoutMs: 3000,
      applicationName: "a",
    },
  );
});

Deno.test("parseConnectionString() reads the URI form", () => {
  assert.deepEqual(parseConnectionString("postgresql://"), DEFAULTS);
  assert.deepEqual(
    parseConnectionString("postgres://me:p%40ss@db.example:6543/data%20base?sslmode=require"),
    {
      ...DEFAULTS,
      host: "db.example",
      port: 6543,
      user: "me",
      password: "p@ss",
      database: "data base",
      sslMode: "require",
    },
  );
  assert.equal(parseConnectionString("postgresql://[::1]:5/x").host, "::1");
  assert.equal(parseConnectionString("postgresql://%2Fvar%2Frun/x").host, "/var/run");
  assert.equal(parseConnectionString("postgresql:///x?host=/var/run&port=7").port, 7);
});

Deno.test("parseConnectionString() refuses what it cannot honour, and never shows a password", () => {
  for (
    const text of [
      "hostt=x",
      "host",
      "host=a,b",
      "port=0",
      "port=70000",
      "port=x",
      "sslmode=allow",
      "sslcert=/a",
      "password='secret",
      "postgresql://u:secret@h:port/",
      "postgresql://u:%zzsecret@h/",
      "postgresql://u:secret@h/?target_session_attrs=any",
    ]
  ) {
    assert.throws(
      () => parseConnectionString(text),
      (error) => isKind(error, "config") && !String(error).includes("secret"),
      text,
    );
  }
});

Deno.test("formatConnectionString() is read back, odd characters included", () => {
  const settings = { host: "/tmp/it's here", port: 1, user: "back\\slash", database: "d" };
  assert.deepEqual(
    parseConnectionString(formatConnectionString(settings)),
    { ...DEFAULTS, ...settings },
  );
});
