/**
 * A group of tasks with one parent. The first failure aborts the siblings; `join` waits for all of them and rethrows that
 * first failure; disposal aborts and joins without throwing. No promise of a group is ever left alone.
 *
 * @module
 */

import { type LinkedSignal, linkSignals } from "./abort.ts";
import { AppError } from "./failure.ts";

/** See the module comment. */
export class TaskGroup implements AsyncDisposable {
  readonly #linked: LinkedSignal;
  readonly #running = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;

  constructor(parent: AbortSignal) {
    this.#linked = linkSignals(parent);
  }

  /** Aborts when the parent does, when a task failed, or when the group is disposed. */
  get signal(): AbortSignal {
    return this.#linked.signal;
  }

  /** Starts a task; it must end soon after its signal aborts. */
  start(task: (signal: AbortSignal) => Promise<void>): void {
    const running = this.#run(task);
    this.#running.add(running);
    void running.then(() => this.#running.delete(running)); // #run never rejects
  }

  async #run(task: (signal: AbortSignal) => Promise<void>): Promise<void> {
    try {
      await task(this.signal);
    } catch (error) {
      if (this.#failure !== undefined) return;
      this.#failure = { error };
      this.#linked.abort(error);
    }
  }

  /** Asks every task to stop. */
  abort(reason: unknown): void {
    this.#linked.abort(reason);
  }

  /** Waits until all tasks have ended, those started meanwhile included; rethrows the first failure. */
  async join(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#linked.abort(new AppError("cancelled", "The task group was closed"));
    while (this.#running.size > 0) await Promise.all(this.#running);
    this.#linked[Symbol.dispose]();
  }
}
