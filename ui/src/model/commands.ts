/** The view as a command that someone else can run: curl against the API, or Watchbill's own CLI. */

import { formatFilter } from "./filter";
import { askedOf, type View } from "./view";

/** Quoted so that a POSIX shell reads exactly this text. */
export function shellQuoted(text: string): string {
  return /^[A-Za-z0-9_./:@%+-]+$/u.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

export function asCurl(view: View, origin: string): string {
  const query = askedOf(view);
  query.set("sortBy", view.sortBy);
  query.set("sortOrder", view.isDescending ? "desc" : "asc");
  query.set("limit", "50");
  const lines = [
    `curl --get ${shellQuoted(`${origin}/api/v1/workloads`)}`,
    `--header "Authorization: Bearer $WATCHBILL_TOKEN"`,
    ...[...query].map(([name, value]) => `--data-urlencode ${shellQuoted(`${name}=${value}`)}`),
  ];
  return lines.join(" \\\n  ");
}

export function asCurlOne(id: string, origin: string): string {
  return [
    `curl ${shellQuoted(`${origin}/api/v1/workloads/${encodeURIComponent(id)}`)}`,
    `--header "Authorization: Bearer $WATCHBILL_TOKEN"`,
  ].join(" \\\n  ");
}

export function asCommand(view: View): string {
  const words = ["watchbill", "get"];
  for (const filter of view.filters) words.push("--filter", shellQuoted(formatFilter(filter)));
  if (view.search !== "") words.push("--search", shellQuoted(view.search));
  if (view.isDeleted) words.push("--deleted");
  words.push("--sort-by", shellQuoted(view.sortBy));
  if (view.isDescending) words.push("--desc");
  return words.join(" ");
}

export function asCommandOne(id: string, isPending: boolean): string {
  return `watchbill ${isPending ? "why" : "describe"} ${shellQuoted(id)}`;
}
