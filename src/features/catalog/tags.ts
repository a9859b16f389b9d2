/**
 * The tags that tie the Kopia snapshots of a backup together, with upstream's names (reference/klio.md 5.4). They are
 * labels of the manifests as well, under the full key that stock kopia gives to tags.
 *
 * @module
 */

/** What a snapshot holds. */
export type PartContent = "pgdata" | "tablespace" | "controldata" | "metadata";

/** Backup name. */
export const TAG_NAME = "tag:klio.io/tag";
/** One of {@link PartContent}. */
export const TAG_CONTENT = "tag:klio.io/content";
/** Only of a tablespace. */
export const TAG_TABLESPACE = "tag:klio.io/tablespaceName";

/** File name of the metadata document in its snapshot. */
export const METADATA_FILE = "metadata.json";

/** The tags of one snapshot. */
export function backupTags(
  part: {
    readonly name: string;
    readonly content: PartContent;
    readonly tablespaceName?: string;
  },
): Map<string, string> {
  const tags = new Map<string, string>([[TAG_NAME, part.name], [TAG_CONTENT, part.content]]);
  if (part.tablespaceName !== undefined) tags.set(TAG_TABLESPACE, part.tablespaceName);
  return tags;
}
