/**
 * The catalogue of backups: public face.
 *
 * @module
 */

export { getBackup, listBackups } from "./catalog.ts";
export { backupTags, METADATA_FILE, type PartContent, TAG_NAME } from "./tags.ts";
export type { BackupPart, Catalog, CatalogBackup, UnreadableBackup } from "./types.ts";
