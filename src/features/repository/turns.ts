/**
 * Turns: work that must not overlap runs one after the other, in the order of the calls. A failed turn does not stop those
 * behind it.
 *
 * @module
 */

/** See the module comment. */
export class Turns {
  #last: Promise<void> = Promise.resolve();

  /** Runs `work` when all earlier work has ended. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.then(() => {}, () => {/* the caller of that turn hears of it */});
    return result;
  }

  /** Resolves when everything given so far has ended. */
  idle(): Promise<void> {
    return this.#last;
  }
}
