/**
 * Objects and trees in a Kopia repository: public face.
 *
 * @module
 */

export { ObjectReader } from "./object_reader.ts";
export { ObjectWriter } from "./object_writer.ts";
export {
  measureTree,
  resolveDirectory,
  type Select,
  type TreeObserver,
  type TreeUpload,
  uploadTree,
  type Verdict,
} from "./tree_upload.ts";
