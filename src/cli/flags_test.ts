import assert from "node:assert/strict";
import { AppError } from "../base/failure.ts";
import { type Accepts, parseFlags } from "./flags.ts";

const ACCEPTS: Accepts = {
  command: "restore",
  flags: [
    { name: "backup-id", type: "string", help: "" },
    { name: "tablespace", type: "string", multiple: true, help: "" },
    { name: "json", type: "boolean", help: "" },
    { name: "help", type: "boolean", help: "" },
  ],
  positionals: [{ name: "DIRECTORY", help: "the new data directory" }],
};

function refused(words: readonly string[]): string {
  try {
    parseFlags(words, ACCEPTS);
  } catch (error) {
    assert.ok(error instanceof AppError);
    assert.equal(error.kind, "usage");
    assert.match(error.hint ?? "", /--help/);
    return error.message;
  }
  throw new assert.AssertionError({ message: `accepted ${words.join(" ")}` });
}

Deno.test("parseFlags() takes --name value, --name=value, repeats and positionals in any order", () => {
  const args = parseFlags([
    "--json",
    "/data",
    "--backup-id=b1",
    "--tablespace",
    "a=/a",
    "--tablespace",
    "b=/b",
  ], ACCEPTS);
  assert.deepEqual(args.positionals, ["/data"]);
  assert.equal(args.string("backup-id"), "b1");
  assert.deepEqual(args.strings("tablespace"), ["a=/a", "b=/b"]);
  assert.equal(args.boolean("json"), true);
  assert.equal(args.boolean("help"), false);
});

Deno.test("parseFlags() treats everything after -- as positional", () => {
  assert.deepEqual(parseFlags(["--", "--json"], ACCEPTS).positionals, ["--json"]);
});

Deno.test("parseFlags() names the word that does not fit", () => {
  assert.match(refused(["/d", "--nope"]), /unknown option "--nope"/);
  assert.match(refused(["/d", "-x"]), /unknown option "-x"/);
  assert.match(refused(["/d", "--json=1"]), /"--json" takes no value, got "1"/);
  assert.match(refused(["/d", "--backup-id"]), /"--backup-id" needs a value/);
  assert.match(refused(["/d", "--backup-id=a", "--backup-id=b"]), /given twice/);
  assert.match(refused(["/d", "/e"]), /unexpected argument "\/e"/);
  assert.match(refused([]), /argument DIRECTORY is missing/);
});

Deno.test("parseFlags() asks for no argument when help is wanted", () => {
  assert.equal(parseFlags(["--help"], ACCEPTS).boolean("help"), true);
});
