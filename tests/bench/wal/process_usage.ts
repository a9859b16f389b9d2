/**
 * What a process has used so far, as Linux counts it in /proc: CPU time of all its threads, the peak of its resident
 * memory, and how long its main thread was ready to run while others had the processors: the noise of a shared machine.
 *
 * @module
 */

/** See the module comment. */
export interface ProcessUsage {
  readonly cpuSeconds: number;
  /** Zero where the kernel does not count it. */
  readonly cpuWaitSeconds: number;
  readonly rssPeakMib: number;
}

/** USER_HZ: the same on every architecture that klio runs on. */
const TICKS_PER_SECOND = 100;
/** Fields of /proc/<pid>/stat counted from the one after the program's name, which may hold blanks. */
const UTIME_FIELD = 11;
const STIME_FIELD = 12;

/** Throws when the process is gone. */
export async function processUsage(pid: number): Promise<ProcessUsage> {
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = Number(fields[UTIME_FIELD]) + Number(fields[STIME_FIELD]);
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  const peakKib = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]);
  if (!Number.isFinite(ticks) || !Number.isFinite(peakKib)) {
    throw new Error(`the kernel does not tell what process ${pid} uses`);
  }
  return {
    cpuSeconds: ticks / TICKS_PER_SECOND,
    cpuWaitSeconds: await cpuWaitSeconds(pid),
    rssPeakMib: peakKib / 1024,
  };
}

/** Second field of schedstat: nanoseconds on a run queue. */
async function cpuWaitSeconds(pid: number): Promise<number> {
  try {
    const text = await Deno.readTextFile(`/proc/${pid}/schedstat`);
    return Number(text.split(" ")[1]) / 1e9;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}
