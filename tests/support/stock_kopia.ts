/**
 * Stock kopia as the judge of what we write at rest. Where `go` is installed it is built once into the user's cache
 * directory; elsewhere there is none and the tests that need it say so. Runs never touch the user's own kopia: own
 * configuration, own cache, no update check.
 *
 * @module
 */

const VERSION = "v0.22.3";
const MODULE = "github.com/kopia/kopia";
const DECODER = new TextDecoder();

let built: Promise<string | undefined> | undefined;

/** Path of the executable; undefined when `go` is absent. Builds it (minutes) when the cache does not hold it. */
export function stockKopia(): Promise<string | undefined> {
  built ??= find();
  return built;
}

/** Prints why a test did not run; its only outcome then. */
export function reportNoGo(): void {
  // deno-lint-ignore no-console
  console.log("not run: no go");
}

async function find(): Promise<string | undefined> {
  const cache = Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME") ?? "/tmp"}/.cache`;
  const directory = `${cache}/klio-test`;
  const path = `${directory}/kopia-${VERSION.slice(1)}`;
  if (await exists(path)) return path;
  if (!await hasGo()) return undefined;
  await Deno.mkdir(directory, { recursive: true });
  const work = await Deno.makeTempDir({ dir: directory, prefix: "build-" });
  try {
    // A module of our own, because `go install <path>@<version>` also wants the list of all versions.
    await Deno.writeTextFile(
      `${work}/go.mod`,
      `module kliotest\n\ngo 1.25\n\nrequire ${MODULE} ${VERSION}\n`,
    );
    await Deno.writeTextFile(
      `${work}/tools.go`,
      `//go:build tools\n\npackage tools\n\nimport _ "${MODULE}"\n`,
    );
    await execute("go", ["build", "-mod=mod", "-tags", "nohtmlui", "-o", "kopia", MODULE], {
      cwd: work,
    });
    await Deno.rename(`${work}/kopia`, path);
  } finally {
    await Deno.remove(work, { recursive: true });
  }
  return path;
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function hasGo(): Promise<boolean> {
  try {
    await execute("go", ["version"], {});
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Output of a program that succeeded; throws with what it said when it failed. */
async function execute(
  program: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> },
): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    ...options,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  if (success) return DECODER.decode(stdout);
  throw new Error(`${program} ${args.join(" ")}: ${DECODER.decode(stderr)}`);
}

/** One kopia "user" with a configuration and a cache of its own, both in `home`. */
export class StockKopiaClient {
  readonly #kopia: string;
  readonly #home: string;
  readonly #password: string;

  constructor(options: {
    readonly kopia: string;
    readonly home: string;
    readonly password: string;
  }) {
    this.#kopia = options.kopia;
    this.#home = options.home;
    this.#password = options.password;
  }

  /** Connects to a repository in a directory. */
  async connect(path: string, ...args: readonly string[]): Promise<void> {
    const cache = `--cache-directory=${this.#home}/cache`;
    await this.run("repository", "connect", "filesystem", `--path=${path}`, cache, ...args);
  }

  /** Runs one command; its standard output. */
  async run(...args: readonly string[]): Promise<string> {
    const common = [
      `--config-file=${this.#home}/kopia.config`,
      `--log-dir=${this.#home}/log`,
      "--no-progress",
      "--no-use-keyring",
    ];
    return await execute(this.#kopia, [...common, ...args], {
      env: { KOPIA_PASSWORD: this.#password, KOPIA_CHECK_FOR_UPDATES: "false", HOME: this.#home },
    });
  }
}
