/**
 * Gaps in a WAL archive: WAL that PostgreSQL removed before it was archived, and that will never come. Names compare as
 * strings: timeline first, then position.
 *
 * @module
 */

/** From the last WAL file before the gap (`.partial` when it is not whole) to the first one after it. */
export interface GapNames {
  readonly start: string;
  readonly end: string;
}

/** The gap that has swallowed the segment of this name, which the archive does not have as a whole. */
export function gapOver<G extends GapNames>(gaps: readonly G[], missing: string): G | undefined {
  return gaps.find((gap) => gap.start.slice(0, 24) <= missing && missing < gap.end);
}

/** The first gap that recovery meets after having replayed the segment of this name. */
export function gapAfter<G extends GapNames>(gaps: readonly G[], replayed: string): G | undefined {
  return gaps.filter((gap) => gap.start.slice(0, 24) >= replayed)
    .sort((a, b) => a.start < b.start ? -1 : 1)[0];
}
