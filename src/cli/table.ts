/**
 * Plain tables, as kubectl prints them: a header, columns padded with spaces, no frame.
 *
 * @module
 */

/** The table as text, with a newline at the end. Rows have as many cells as the header. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows];
  const widths = header.map((_, column) =>
    Math.max(...all.map((row) => (row[column] ?? "").length))
  );
  return all.map((row) =>
    row.map((cell, column) =>
      column === row.length - 1 ? cell : cell.padEnd((widths[column] ?? 0) + 3)
    ).join("")
  ).join("\n") + "\n";
}
