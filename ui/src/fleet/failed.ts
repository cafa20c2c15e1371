/** The workloads that failed within the last 24 hours: how many, and the lists that show them. */

import { serverNow } from "../api/server_clock";
import { countWorkloads, exportCsv } from "../api/routes";
import { listUrl, readView } from "../model/view";

const DAY_MS = 86_400_000;
export const CSV_DAYS = 7;

export interface FailedCounts {
  /** The beginning of the 24 hours. */
  readonly since: string;
  readonly live: number;
  readonly deleted: number;
}

/** The URL of the list. */
export function failedView(since: string, isDeleted: boolean): string {
  return listUrl([["phase", "==", "Failed"], ["phaseUpdatedAt", ">=", since]], { sortBy: "phaseUpdatedAt", isDeleted });
}

/** Live and deleted workloads that failed in the last `CSV_DAYS` days, as one CSV. Raises ApiError. */
export async function failedCsv(): Promise<string> {
  const since = `${new Date(serverNow() - CSV_DAYS * DAY_MS).toISOString().slice(0, 19)}Z`;
  const [live, deleted] = await Promise.all(
    [false, true].map((isDeleted) =>
      exportCsv(readView(new URLSearchParams(failedView(since, isDeleted).split("?")[1]))),
    ),
  );
  const head = deleted!.indexOf("\r\n") + 2;
  return live! + deleted!.slice(head);
}

export async function countFailed(signal: AbortSignal): Promise<FailedCounts> {
  const since = `${new Date(serverNow() - DAY_MS).toISOString().slice(0, 19)}Z`;
  const counts = [false, true].map((isDeleted) => {
    const query = new URLSearchParams(failedView(since, isDeleted).split("?")[1]);
    return countWorkloads(readView(query), [], signal);
  });
  const [live, deleted] = await Promise.all(counts);
  return { since, live: live!, deleted: deleted! };
}
