/** Live refresh: loads data again when the server reports a relevant change, and periodically anyway. */

import { listenForChanges } from "../stream/shared_stream";

/** The least time between two refreshes, however much changes. */
const MIN_INTERVAL_MS = 1_500;
/** For changes that the stream does not report: elapsed time, clusters that become disconnected. */
const PERIODIC_MS = 30_000;
/** Without a stream, as behind a proxy that buffers it; and for changes that may or may not concern the data. */
const FALLBACK_POLL_MS = 5_000;

/** How soon a change needs a refresh. "maybe": the stream cannot tell whether it concerns the data. */
export type Relevance = "yes" | "maybe" | "no";

const DELAY_MS: Readonly<Record<Relevance, number>> = {
  yes: MIN_INTERVAL_MS,
  maybe: FALLBACK_POLL_MS,
  no: PERIODIC_MS,
};

/** Rates a change by the ids of the workloads that were written and of those that were deleted. */
export type RateChange = (changed: readonly string[], gone: readonly string[]) => Relevance;

/**
 * Runs `refresh` now and from then on, never twice at a time and never while the page is hidden. `onStreaming` is
 * called with whether changes are reported or polled for. Returns how to end it.
 */
export function startLiveRefresh(
  refresh: () => Promise<void>,
  rate: RateChange,
  onStreaming: (isStreaming: boolean) => void = () => undefined,
): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let ranAt = -Infinity;
  let isStreaming = false;
  let delay = 0;
  let isRunning = false;
  let isEnded = false;

  const schedule = (atMost = Infinity): void => {
    delay = Math.min(delay, atMost, isStreaming ? PERIODIC_MS : FALLBACK_POLL_MS);
    clearTimeout(timer);
    if (isRunning || isEnded || document.hidden) return;
    timer = setTimeout(() => void run(), Math.max(0, ranAt + delay - Date.now()));
  };
  const run = async (): Promise<void> => {
    isRunning = true;
    delay = PERIODIC_MS;
    await refresh();
    isRunning = false;
    ranAt = Date.now();
    schedule();
  };
  const setStreaming = (next: boolean): void => {
    if (next !== isStreaming) onStreaming(next);
    isStreaming = next;
    // Before the stream opened, something may have changed without a report.
    schedule(next ? MIN_INTERVAL_MS : FALLBACK_POLL_MS);
  };
  const onVisibility = (): void => schedule(MIN_INTERVAL_MS);

  document.addEventListener("visibilitychange", onVisibility);
  schedule();
  const stopListening = listenForChanges((message) => {
    if (message.type === "change") schedule(DELAY_MS[rate(message.changed, message.gone)]);
    else if (message.type === "resync") schedule(MIN_INTERVAL_MS);
    else setStreaming(message.type === "open");
  });
  return () => {
    isEnded = true;
    document.removeEventListener("visibilitychange", onVisibility);
    clearTimeout(timer);
    stopListening();
  };
}
