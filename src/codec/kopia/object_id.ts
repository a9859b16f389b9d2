/**
 * Object ids: `I` once per level of indirection, `Z` when the payload names its own compressor, then a content id
 * (reference/kopia.md 2.1). A direct object is one content; an indirect one is an index of pieces (`indirect.ts`).
 *
 * @module
 */

import { AppError } from "../../base/failure.ts";
import { parseContentId } from "./content_id.ts";

/** Deeper nesting than any real object has: two levels of 128 KiB indexes reach 400 GiB, three 700 TiB. */
export const INDIRECTION_MAX = 8;

/** An object id taken apart. */
export interface ObjectId {
  readonly indirection: number;
  /** Object-level compression, which only repositories without content compression have. */
  readonly compressed: boolean;
  readonly contentId: string;
}

/** Takes an id apart. Throws `protocol`. */
export function parseObjectId(text: string): ObjectId {
  // A "D" is a mark of long gone versions that stock kopia ignores too.
  const [, levels, compressed, contentId] = /^(I*)(Z?)D?([^IZD].*)$/.exec(text) ?? [];
  if (levels === undefined || contentId === undefined || levels.length > INDIRECTION_MAX) {
    throw new AppError("protocol", `Parse object id "${text.slice(0, 80)}": malformed`);
  }
  parseContentId(contentId);
  return { indirection: levels.length, compressed: compressed === "Z", contentId };
}

/** The id of an object whose index is the object `index`. */
export function indirectObjectId(index: string): string {
  return `I${index}`;
}
