/**
 * Faults on demand for `memory_files.ts`: which operation fails, and in which one the machine loses power.
 *
 * @module
 */

import { AppError, type FailureKind } from "../../src/base/failure.ts";

/** What an operation is, to aim faults. */
export type Operation =
  | "open"
  | "create"
  | "read"
  | "write"
  | "sync"
  | "truncate"
  | "rename"
  | "remove"
  | "mkdir"
  | "list"
  | "stat"
  | "syncDirectory"
  | "attribute";

/** Errors injected on purpose. */
export interface Fault {
  /** `exhausted` for ENOSPC, `repository` for EIO, `permission` for EROFS and EACCES. */
  readonly kind: FailureKind;
  /** Only these operations fail; absent means all. */
  readonly operations?: readonly Operation[];
  /** Only operations on paths that contain this text. */
  readonly path?: string;
  /** Let this many matching operations pass first. */
  readonly skip?: number;
  /** Then fail this many; absent means until `clearFault`. */
  readonly count?: number;
}

/** Counts operations and decides the fate of each. */
export class FaultPlan {
  operations = 0;
  /** Number of the operation in which the machine loses power. */
  crashAt = Number.POSITIVE_INFINITY;
  crashed = false;
  #fault: { readonly rule: Fault; matched: number } | undefined;

  /** Sets or clears the one active fault. */
  setFault(rule: Fault | undefined): void {
    this.#fault = rule === undefined ? undefined : { rule, matched: 0 };
  }

  /**
   * Counts one operation; throws when a fault hits it or the machine is dead. At the crashing operation itself `effect`
   * still happens (not durably), since power may also fail just after the system call.
   */
  step(operation: Operation, path: string, effect: () => void = () => {}): void {
    if (this.crashed) throw new AppError("repository", `Use "${path}": the machine has crashed`);
    this.operations++;
    if (this.operations >= this.crashAt) {
      this.crashed = true;
      effect();
      throw new AppError("repository", `Use "${path}": the machine crashes now`);
    }
    const fault = this.#faultOf(operation, path);
    if (fault !== undefined) {
      throw new AppError(fault.kind, `Use "${path}": injected fault in ${operation}`);
    }
    effect();
  }

  #faultOf(operation: Operation, path: string): Fault | undefined {
    if (this.#fault === undefined) return undefined;
    const { rule } = this.#fault;
    if (!(rule.operations?.includes(operation) ?? true)) return undefined;
    if (rule.path !== undefined && !path.includes(rule.path)) return undefined;
    const index = this.#fault.matched++ - (rule.skip ?? 0);
    return index >= 0 && index < (rule.count ?? Number.POSITIVE_INFINITY) ? rule : undefined;
  }
}
