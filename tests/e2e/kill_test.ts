/**
 * The promise of the WAL path with real processes: PostgreSQL, streamer and server are killed with SIGKILL at random
 * moments, under concurrent writers and synchronous replication to klio, and every commit that a client saw acknowledged
 * is found in a database restored from the archive alone. An audit is a disaster: everything dies in the middle of writes
 * and only the server comes back, so nothing that PostgreSQL still had on its own disk can help.
 *
 * `KLIO_TEST_DEEP=1` runs 50 rounds, `KLIO_TEST_SEED` repeats the choices of a run (not its timing).
 *
 * @module
 */

import assert from "node:assert/strict";
import { SYSTEM_CLOCK } from "../../src/adapters/process/clock.ts";
import type { LocalCluster } from "../../src/adapters/postgres/local_cluster.ts";
import { AppError } from "../../src/base/failure.ts";
import type { Role } from "../../src/cli/demo/role.ts";
import { SeededRandom } from "../support/seeded_random.ts";
import { DurableWriters } from "./durable_writers.ts";
import { Stage } from "./stage.ts";

const DEEP = Deno.env.get("KLIO_TEST_DEEP") === "1";
const ROUNDS = DEEP ? 50 : 6;
const ROUNDS_PER_AUDIT = DEEP ? 10 : 6;
const WRITERS = 4;
/** Small, so that kills meet many ends of segments. */
const SEGMENT_SIZE_BYTES = 1 << 20;

const NEVER = new AbortController().signal;

type Victim = "postgres" | "streamer" | "server";
const VICTIMS: readonly [Victim, ...Victim[]] = ["postgres", "streamer", "server"];

function chosenSeed(): number {
  const given = Deno.env.get("KLIO_TEST_SEED");
  return given === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(given);
}

Deno.test("every acknowledged commit survives SIGKILL of PostgreSQL, streamer and server", async () => {
  const random = new SeededRandom(chosenSeed());
  console.log(`KLIO_TEST_SEED=${random.seed}`);
  const stop = new AbortController();
  const options = { signal: stop.signal };
  await using opened = await Stage.open({
    ...options,
    segmentSizeBytes: SEGMENT_SIZE_BYTES,
    settings: { synchronous_standby_names: "klio", autovacuum: "off" },
  });
  const { stage, primary } = opened;
  const cast = await Cast.start(stage, primary);
  await using writers = await DurableWriters.start(primary, { ...options, writers: WRITERS });
  try {
    await stage.backup(primary, "first");
    let audits = 0;
    for (let round = 1; round <= ROUNDS; round++) {
      await stage.within(
        `Commit before round ${round}`,
        (o) => writers.further(random.integer(1, 60), o),
      );
      await SYSTEM_CLOCK.sleep(random.integer(0, 40), options);
      const victims = random.float() < 0.75
        ? [random.pick(VICTIMS)]
        : shuffled(VICTIMS, random).slice(0, 2);
      const beganMs = performance.now();
      if (random.float() < 0.3) await cast.freezeServer(random.integer(10, 200));
      for (const victim of victims) await cast.kill(victim);
      cast.thawServer();
      for (const victim of shuffled(victims, random)) await cast.bringBack(victim);
      // Each writer may still hear of the commit that was on its way when the round began.
      await stage.within(`Commit after round ${round}`, (o) => writers.further(WRITERS + 1, o));
      console.log(
        `round ${round}: ${victims.join(" and ")}, commits again after ${
          Math.round(performance.now() - beganMs)
        } ms`,
      );
      if (round % ROUNDS_PER_AUDIT === 0) await audit(`audit-${++audits}`);
    }
  } finally {
    stop.abort(new AppError("cancelled", "The test is over"));
  }

  async function audit(name: string): Promise<void> {
    await stage.within("Commit before the disaster", (o) => writers.further(50, o));
    if (random.float() < 0.5) await cast.freezeServer(random.integer(10, 100));
    for (const victim of shuffled(VICTIMS, random)) await cast.kill(victim);
    cast.thawServer();
    const ask = writers.audit();
    await cast.bringBack("server");
    const found = await stage.restored(name, [], async (restored) => {
      await using connection = await restored.connect(options);
      return await ask(connection, options);
    });
    console.log(
      `${name}: ${found.acknowledged} acknowledged, ${found.lost.length} lost; ` +
        `${cast.metPredecessors} times a streamer met its predecessor`,
    );
    assert.ok(found.acknowledged > 0);
    assert.deepEqual(found.lost, []);
    assert.equal(found.wrong, 0);
    for (const victim of ["postgres", "streamer"] as const) await cast.bringBack(victim);
  }
});

function shuffled<T>(items: readonly T[], random: SeededRandom): T[] {
  return items.map((item) => ({ item, order: random.float() })).toSorted((a, b) =>
    a.order - b.order
  ).map(({ item }) => item);
}

/** The processes of this play, dead or alive. */
class Cast {
  readonly #stage: Stage;
  readonly #primary: LocalCluster;
  #server: Role;
  #streamer: Role;
  #frozen = false;
  /** How often a streamer found the stream of the killed one before it still open on the server. */
  metPredecessors = 0;

  private constructor(stage: Stage, primary: LocalCluster, server: Role) {
    this.#stage = stage;
    this.#primary = primary;
    this.#server = server;
    this.#streamer = stage.startStreamer(primary);
  }

  static async start(stage: Stage, primary: LocalCluster): Promise<Cast> {
    const cast = new Cast(stage, primary, await stage.startServer());
    await stage.waitFor(cast.#streamer, "Streaming WAL");
    return cast;
  }

  /** The server stands still for a while, and on until it is thawed or killed: more than usual is on its way. */
  async freezeServer(durationMs: number): Promise<void> {
    Deno.kill(this.#server.pid, "SIGSTOP");
    this.#frozen = true;
    await SYSTEM_CLOCK.sleep(durationMs, { signal: NEVER });
  }

  thawServer(): void {
    if (this.#frozen) Deno.kill(this.#server.pid, "SIGCONT");
    this.#frozen = false;
  }

  async kill(victim: Victim): Promise<void> {
    if (victim === "postgres") await this.#primary.kill();
    else if (victim === "server") {
      await this.#server.kill();
      this.#frozen = false;
    } else await this.#streamer.kill();
  }

  async bringBack(victim: Victim): Promise<void> {
    if (victim === "postgres") await this.#primary.start({ signal: NEVER });
    else if (victim === "server") this.#server = await this.#stage.startServer();
    else {
      this.#streamer = this.#stage.startStreamer(this.#primary);
      this.#streamer.onLine((line) => {
        if (String(line["error"]).includes("another writer")) this.metPredecessors++;
      });
    }
  }
}
