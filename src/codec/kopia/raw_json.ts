/**
 * Cuts JSON text into the texts of its members, without parsing them: numbers keep all their digits. Works only on text
 * that `JSON.parse` has accepted; that is what keeps it this small.
 *
 * @module
 */

/** Members of an object in their order, the last of equal keys wins; undefined when the text is no object. */
export function rawMembers(json: string): Map<string, string> | undefined {
  const parts = split(json, "{");
  if (parts === undefined) return undefined;
  const members = new Map<string, string>();
  for (const part of parts) {
    const keyEnd = stringEnd(part, 0);
    const colon = part.indexOf(":", keyEnd);
    members.set(String(JSON.parse(part.slice(0, keyEnd))), part.slice(colon + 1).trim());
  }
  return members;
}

/** Elements of a list; undefined when the text is no list. */
export function rawElements(json: string): string[] | undefined {
  return split(json, "[");
}

/** The texts between the commas of the outermost bracket, without surrounding white space. */
function split(json: string, open: "{" | "["): string[] | undefined {
  const text = json.trim();
  if (text[0] !== open) return undefined;
  const parts: string[] = [];
  let depth = 0;
  let start = 1;
  for (let i = 0; i < text.length; i++) {
    switch (text[i]) {
      case '"':
        i = stringEnd(text, i) - 1;
        break;
      case "{":
      case "[":
        depth++;
        break;
      case "}":
      case "]":
        depth--;
        if (depth === 0) parts.push(text.slice(start, i).trim());
        break;
      case ",":
        if (depth === 1) {
          parts.push(text.slice(start, i).trim());
          start = i + 1;
        }
        break;
    }
  }
  return parts.length === 1 && parts[0] === "" ? [] : parts;
}

/** Index after the closing quote of the string that begins at `start`. */
function stringEnd(text: string, start: number): number {
  for (let i = start + 1; i < text.length; i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === '"') return i + 1;
  }
  return text.length;
}
