/** A list or a workload as a command to run elsewhere: curl against the API, or the Watchbill CLI. */

import { formatFilter } from "./filter";
import { filterQuery, type View } from "./view";

/** The text quoted for a POSIX shell. */
export function shellQuoted(text: string): string {
  return /^[A-Za-z0-9_./:@%+-]+$/u.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

export function listCurl(view: View, origin: string): string {
  const query = filterQuery(view);
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

export function workloadCurl(id: string, origin: string): string {
  return [
    `curl ${shellQuoted(`${origin}/api/v1/workloads/${encodeURIComponent(id)}`)}`,
    `--header "Authorization: Bearer $WATCHBILL_TOKEN"`,
  ].join(" \\\n  ");
}

export function listCommand(view: View): string {
  const words = ["watchbill", "get"];
  for (const filter of view.filters) words.push("--filter", shellQuoted(formatFilter(filter)));
  if (view.search !== "") words.push("--search", shellQuoted(view.search));
  if (view.isDeleted) words.push("--deleted");
  if (view.isAll) words.push("--all-workloads");
  words.push("--sort-by", shellQuoted(view.sortBy));
  if (view.isDescending) words.push("--desc");
  return words.join(" ");
}

/** The events of a workload's object and of its pods, whose names begin with its own. */
export function eventsCommand(namespace: string, name: string): string {
  return `kubectl get events --namespace ${shellQuoted(namespace)} --sort-by .lastTimestamp | grep -F ${shellQuoted(name)}`;
}

export function workloadCommand(id: string, isPending: boolean): string {
  return `watchbill ${isPending ? "why" : "describe"} ${shellQuoted(id)}`;
}
