/** Keeps a list fresh: asks anew when the server says that something in it changed, and now and then anyway. */

/** The least time between two refreshes, however much changes. */
const MIN_INTERVAL_MS = 1_500;
/** What the stream does not tell of: times that run, clusters that fall silent. */
const PERIODIC_MS = 30_000;
/** Where changes are not told: behind a proxy that holds streams back, or with too many streams open. */
const FALLBACK_POLL_MS = 5_000;

/**
 * Runs `attempt` now and from then on, never twice at a time and never while the page is hidden. `url` is the
 * stream of changes; browsers allow few connections to one server, so a hidden page gives its own back. What
 * does not match is told as gone to everybody, seen here before or not: `isRelevant` says whether any of it matters.
 */
export function startLiveRefresh(
  url: string,
  attempt: () => Promise<void>,
  isRelevant: (changed: readonly string[], gone: readonly string[]) => boolean,
): () => void {
  let stream: EventSource | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let ranAt = -Infinity;
  let isStreaming = false;
  let hasChanges = true;
  let isRunning = false;
  let isEnded = false;

  const schedule = (): void => {
    clearTimeout(timer);
    if (isRunning || isEnded || document.hidden) return;
    const wait = hasChanges ? MIN_INTERVAL_MS : isStreaming ? PERIODIC_MS : FALLBACK_POLL_MS;
    timer = setTimeout(() => void run(), Math.max(0, ranAt + wait - Date.now()));
  };
  const run = async (): Promise<void> => {
    isRunning = true;
    hasChanges = false;
    await attempt();
    isRunning = false;
    ranAt = Date.now();
    schedule();
  };
  const note = (news: Partial<{ isStreaming: boolean; hasChanges: boolean }>): void => {
    isStreaming = news.isStreaming ?? isStreaming;
    hasChanges ||= news.hasChanges ?? false;
    schedule();
  };
  const close = (): void => {
    stream?.close();
    stream = undefined;
    isStreaming = false;
  };
  const open = (): void => {
    stream = new EventSource(url);
    // Between the last answer and this moment something may have changed unheard.
    stream.addEventListener("ready", () => note({ isStreaming: true, hasChanges: true }));
    stream.addEventListener("change", ({ data }: MessageEvent<string>) => {
      const { changed, gone } = JSON.parse(data) as { changed: readonly string[]; gone: readonly string[] };
      if (isRelevant(changed, gone)) note({ hasChanges: true });
    });
    stream.addEventListener("resync", () => note({ hasChanges: true }));
    stream.addEventListener("error", () => note({ isStreaming: false }));
    stream.addEventListener("end", () => (close(), schedule()));
  };
  const onVisibility = (): void => {
    close();
    if (!document.hidden) open();
    note({ hasChanges: true });
  };

  document.addEventListener("visibilitychange", onVisibility);
  onVisibility();
  return () => {
    isEnded = true;
    document.removeEventListener("visibilitychange", onVisibility);
    clearTimeout(timer);
    close();
  };
}
