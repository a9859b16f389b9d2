import assert from "node:assert/strict";
import { AppError } from "../base/failure.ts";
import { type ConfigSources, loadConfig } from "./config.ts";
import { SECTION_NAMES, settingsOf } from "./settings.ts";

interface Given {
  readonly file?: string;
  readonly env?: Record<string, string>;
  readonly flags?: Record<string, string>;
}

function sources(given: Given): ConfigSources {
  return {
    flag: (name) => given.flags?.[name],
    env: (name) => given.env?.[name],
    file: given.file === undefined ? undefined : "klio.yaml",
    readTextFile: () => Promise.resolve(given.file ?? ""),
  };
}

async function refused(section: "log" | "source" | "client.wal", given: Given): Promise<string> {
  try {
    await loadConfig([section], sources(given));
  } catch (error) {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.kind, "config");
    return error.message;
  }
  throw new assert.AssertionError({ message: "accepted" });
}

Deno.test("loadConfig() lets a flag win over environment, file and default", async () => {
  const file = "log:\n  level: error\n";
  const env = { KLIO_LOG_LEVEL: "warning" };
  const level = async (given: Given) => (await loadConfig(["log"], sources(given))).log.level;
  assert.equal(await level({}), "info");
  assert.equal(await level({ file }), "error");
  assert.equal(await level({ file, env }), "warning");
  assert.equal(await level({ file, env, flags: { "log-level": "debug" } }), "debug");
});

Deno.test("loadConfig() reads integers from every source", async () => {
  const key = "standby_message_timeout_seconds";
  const read = async (given: Given) => (await loadConfig(["source"], sources(given))).source[key];
  assert.equal(await read({ file: `source:\n  ${key}: 3\n` }), 3);
  assert.equal(await read({ env: { KLIO_SOURCE_STANDBY_MESSAGE_TIMEOUT_SECONDS: "4" } }), 4);
  assert.match(
    await refused("source", { flags: { "source-standby-message-timeout-seconds": "soon" } }),
    /flag --source-standby-message-timeout-seconds\): wanted an integer from 0 to 3600, saw "soon"/,
  );
});

Deno.test("loadConfig() refuses unknown keys wherever they stand, and suggests", async () => {
  assert.match(
    await refused("log", { file: "lag:\n  level: info\n" }),
    /lag \(file "klio.yaml"\): unknown key/,
  );
  assert.match(await refused("log", { file: "log:\n  levle: info\n" }), /log\.levle .*unknown key/);
  assert.match(
    await refused("log", { file: "source:\n  address: a:1\n" }),
    /did you mean client\.wal\.address\?/,
  );
  assert.match(await refused("log", { file: "source: 3\n" }), /source .*wanted a mapping, saw 3/);
});

Deno.test("loadConfig() tells every problem with key, source and what is wanted", async () => {
  const message = await refused("client.wal", { env: { KLIO_CLIENT_WAL_ADDRESS: "nowhere" } });
  assert.match(
    message,
    /client\.wal\.address \(environment variable KLIO_CLIENT_WAL_ADDRESS\): wanted host:port, saw "nowhere"/,
  );
  assert.match(
    message,
    /client\.wal\.client_key_path: missing, set it with --client-wal-client-key-path, KLIO_CLIENT_WAL_CLIENT_KEY_PATH/,
  );
  assert.match(
    await refused("log", { file: "log:\n  level: loud\n" }),
    /wanted one of error, warning, info, debug, trace, saw "loud"/,
  );
});

Deno.test("loadConfig() refuses a file that is missing, not YAML, or not a mapping", async () => {
  assert.match(
    await refused("log", { file: "log: [unclosed" }),
    /configuration file "klio.yaml": not YAML/,
  );
  assert.match(
    await refused("log", { file: "- a\n- b\n" }),
    /wanted a mapping of sections, saw a list/,
  );
  const missing: ConfigSources = {
    ...sources({ file: "x" }),
    readTextFile: () => Promise.reject(new AppError("not_found", "Open")),
  };
  await assert.rejects(
    loadConfig(["log"], missing),
    /configuration file "klio.yaml": no such file/,
  );
});

Deno.test("loadConfig() accepts an empty file and ignores foreign KLIO_ variables", async () => {
  const config = await loadConfig(
    ["log"],
    sources({ file: "\n", env: { KLIO_SERVER_PORT: "tcp://10.0.0.1:52000" } }),
  );
  assert.equal(config.log.format, "auto");
});

Deno.test("settings have distinct flags and environment names, and help", () => {
  const settings = settingsOf(SECTION_NAMES);
  assert.equal(new Set(settings.map((s) => s.flag)).size, settings.length);
  assert.equal(new Set(settings.map((s) => s.env)).size, settings.length);
  assert.deepEqual(settings.filter((s) => s.help === "").map((s) => s.key), []);
});
