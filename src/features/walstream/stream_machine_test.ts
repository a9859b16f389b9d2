import assert from "node:assert/strict";
import fc from "fast-check";
import { concat } from "../../base/bytes.ts";
import { isKind } from "../../base/failure.ts";
import { lsn, LSN_ZERO, lsnAdd } from "../../domain/lsn.ts";
import type { ReplicationMessage } from "../../ports/postgres.ts";
import { type StreamEffect, StreamMachine } from "./stream_machine.ts";

const SEND_BYTES_MAX = 1 << 20;
const START = lsn(0x100_0000n);
const data = (start: bigint, sizeBytes: number): ReplicationMessage => ({
  kind: "data",
  start: lsn(start),
  walEnd: lsn(start + 5n),
  bytes: new Uint8Array(sizeBytes).fill(Number(start % 251n)),
});
const machineOf = (options: { reported?: bigint; reportMin?: bigint; holdMs?: number } = {}) =>
  new StreamMachine({
    start: START,
    reported: lsn(options.reported ?? 0n),
    reportMin: lsn(options.reportMin ?? 0n),
    statusIntervalMs: 100,
    sendBytesMax: SEND_BYTES_MAX,
    holdMs: options.holdMs ?? 0,
    nowMs: 0,
  });
const statuses = (effects: readonly StreamEffect[]) =>
  effects.flatMap((e) => e.kind === "status" ? [e.status] : []);

Deno.test("StreamMachine joins small messages, keeps their order, and answers before it sends", () => {
  const machine = machineOf();
  const effects = machine.step({
    kind: "messages",
    messages: [
      data(START, 10),
      { kind: "keepalive", walEnd: lsn(START + 99n), replyRequested: true },
      data(START + 10n, 20),
      data(START + 30n, SEND_BYTES_MAX),
    ],
  }, 1);
  assert.deepEqual(effects.map((e) => e.kind), ["status", "send", "send"]);
  assert.deepEqual(effects[1], {
    kind: "send",
    position: START,
    bytes: concat([
      new Uint8Array(10).fill(Number(START % 251n)),
      new Uint8Array(20).fill(Number((START + 10n) % 251n)),
    ]),
  });
  assert.equal(machine.received, START + 30n + BigInt(SEND_BYTES_MAX));
});

Deno.test("StreamMachine holds WAL until it is asked for, or too much", () => {
  const machine = machineOf({ holdMs: 50 });
  assert.deepEqual(machine.step({ kind: "messages", messages: [data(START, 10)] }, 5), []);
  assert.equal(machine.flushDueMs, 55);
  assert.deepEqual(machine.step({ kind: "messages", messages: [data(START + 10n, 10)] }, 20), []);
  assert.equal(machine.flushDueMs, 55, "the oldest byte counts");
  const [send, ...more] = machine.step({ kind: "flush" }, 55);
  assert.ok(send?.kind === "send" && send.position === START && send.bytes.length === 20);
  assert.equal(more.length, 0);
  assert.equal(machine.flushDueMs, undefined);
  assert.deepEqual(machine.step({ kind: "flush" }, 60), []);
  const full = { kind: "messages" as const, messages: [data(START + 20n, SEND_BYTES_MAX)] };
  assert.equal(machine.step(full, 60).length, 1, "enough is sent at once");
});

Deno.test("StreamMachine reports what is durable, at once, and withholds it below the slot's position", () => {
  const machine = machineOf({ reportMin: START + 50n });
  machine.step({ kind: "messages", messages: [data(START, 100)] }, 1);
  assert.deepEqual(machine.step({ kind: "durable", position: lsn(START + 49n) }, 2), []);
  assert.deepEqual(statuses(machine.step({ kind: "tick" }, 100)), [
    { write: START + 100n, flush: LSN_ZERO, apply: LSN_ZERO, replyRequested: false },
  ]);
  assert.deepEqual(statuses(machine.step({ kind: "durable", position: lsn(START + 60n) }, 101)), [
    { write: START + 100n, flush: START + 60n, apply: START + 60n, replyRequested: false },
  ]);
  assert.deepEqual(machine.step({ kind: "durable", position: lsn(START + 60n) }, 102), []);
});

Deno.test("StreamMachine keeps what was reported before a timeline switch until more is durable", () => {
  const machine = machineOf({ reported: START + 10n });
  const [before] = statuses(machine.step({ kind: "tick" }, 100));
  assert.equal(before?.flush, START + 10n);
  assert.equal(before?.write, START + 10n);
  machine.step({ kind: "messages", messages: [data(START, 100)] }, 101);
  assert.deepEqual(machine.step({ kind: "durable", position: lsn(START + 9n) }, 102), []);
  const [after] = statuses(machine.step({ kind: "durable", position: lsn(START + 11n) }, 103));
  assert.equal(after?.flush, START + 11n);
});

Deno.test("StreamMachine sends a status when nothing was sent for the interval", () => {
  const machine = machineOf();
  assert.deepEqual(machine.step({ kind: "tick" }, 99), []);
  assert.equal(statuses(machine.step({ kind: "tick" }, 100)).length, 1);
  assert.equal(machine.statusDueMs, 200);
  assert.deepEqual(machine.step({ kind: "tick" }, 199), []);
});

Deno.test("StreamMachine refuses gaps in the WAL and impossible acknowledgements", () => {
  const protocol = (error: unknown) => isKind(error, "protocol");
  const step = (machine: StreamMachine, position: bigint) =>
    machine.step({ kind: "durable", position: lsn(position) }, 1);
  assert.throws(
    () => machineOf().step({ kind: "messages", messages: [data(START + 1n, 1)] }, 1),
    protocol,
  );
  const machine = machineOf();
  machine.step({ kind: "messages", messages: [data(START, 10)] }, 1);
  assert.throws(() => step(machine, START + 11n), protocol);
  step(machine, START + 5n);
  assert.throws(() => step(machine, START + 4n), protocol);
});

Deno.test("StreamMachine: under any interleaving the reported flush is durable and never goes back", () => {
  const event = fc.oneof(
    fc.record({
      kind: fc.constant("data" as const),
      sizes: fc.array(fc.nat(5000), { maxLength: 5 }),
    }),
    fc.record({ kind: fc.constant("keepalive" as const), reply: fc.boolean() }),
    fc.record({
      kind: fc.constant("durable" as const),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
    fc.record({ kind: fc.constant("tick" as const), ms: fc.nat(150) }),
  );
  fc.assert(fc.property(fc.array(event, { maxLength: 60 }), fc.nat(3000), (events, minimum) => {
    const machine = machineOf({ reportMin: START + BigInt(minimum) });
    let [nowMs, durable, flush, sent] = [0, START, LSN_ZERO, START];
    let lastStatusMs = 0;
    const run = (effects: readonly StreamEffect[]) => {
      for (const effect of effects) {
        if (effect.kind === "send") {
          assert.equal(effect.position, sent, "sends follow each other");
          sent = lsnAdd(sent, effect.bytes.length);
          continue;
        }
        lastStatusMs = nowMs;
        const { status } = effect;
        assert.ok(status.flush >= flush, "flush never goes back");
        assert.ok(status.flush === LSN_ZERO || status.flush <= durable, "flush is durable");
        assert.ok(status.flush === LSN_ZERO || status.flush >= START + BigInt(minimum));
        assert.ok(status.write >= status.flush && status.apply === status.flush);
        flush = status.flush;
      }
    };
    for (const e of events) {
      if (e.kind === "tick") {
        nowMs += e.ms;
        run(machine.step({ kind: "tick" }, nowMs));
        assert.ok(nowMs - lastStatusMs < 100, "the status keeps flowing");
      } else if (e.kind === "durable") {
        const step = BigInt(Math.floor(Number(sent - durable) * e.share));
        durable = lsnAdd(durable, step);
        const effects = machine.step({ kind: "durable", position: durable }, nowMs);
        run(effects);
        if (durable >= START + BigInt(minimum)) assert.equal(flush, durable, "told at once");
      } else if (e.kind === "keepalive") {
        const message = { kind: e.kind, walEnd: sent, replyRequested: e.reply };
        const effects = machine.step({ kind: "messages", messages: [message] }, nowMs);
        assert.equal(statuses(effects).length, e.reply ? 1 : 0);
        run(effects);
      } else {
        let at: bigint = machine.received;
        const messages = e.sizes.filter((s) => s > 0).map((size) => {
          const message = data(at, size);
          at += BigInt(size);
          return message;
        });
        run(machine.step({ kind: "messages", messages }, nowMs));
        assert.equal(sent, machine.received, "everything received is handed out");
      }
    }
  }));
});
