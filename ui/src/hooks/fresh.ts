/** Keeps a list fresh: asks anew when the server says that something in it changed, and now and then anyway. */

/** The least time between two refreshes, however much changes. */
const GAP_MS = 1_500;
/** What the stream does not tell of: times that run, clusters that fall silent. */
const ANYWAY_MS = 30_000;
/** Where changes are not told: behind a proxy that holds streams back, or with too many streams open. */
const UNTOLD_MS = 5_000;

/**
 * Runs `attempt` now and from then on, never twice at a time and never while the page is hidden. `url` is the
 * stream of changes; browsers allow few connections to one server, so a hidden page gives its own back. What
 * does not match is told as gone to everybody, seen here before or not: `isNews` says whether any of it matters.
 */
export function keepFresh(
  url: string,
  attempt: () => Promise<void>,
  isNews: (changed: readonly string[], gone: readonly string[]) => boolean,
): () => void {
  let stream: EventSource | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let ranAt = -Infinity;
  let isTold = false;
  let hasNews = true;
  let isRunning = false;
  let isEnded = false;

  const schedule = (): void => {
    clearTimeout(timer);
    if (isRunning || isEnded || document.hidden) return;
    const wait = hasNews ? GAP_MS : isTold ? ANYWAY_MS : UNTOLD_MS;
    timer = setTimeout(() => void run(), Math.max(0, ranAt + wait - Date.now()));
  };
  const run = async (): Promise<void> => {
    isRunning = true;
    hasNews = false;
    await attempt();
    isRunning = false;
    ranAt = Date.now();
    schedule();
  };
  const note = (news: Partial<{ isTold: boolean; hasNews: boolean }>): void => {
    isTold = news.isTold ?? isTold;
    hasNews ||= news.hasNews ?? false;
    schedule();
  };
  const close = (): void => {
    stream?.close();
    stream = undefined;
    isTold = false;
  };
  const open = (): void => {
    stream = new EventSource(url);
    // Between the last answer and this moment something may have changed unheard.
    stream.addEventListener("ready", () => note({ isTold: true, hasNews: true }));
    stream.addEventListener("change", ({ data }: MessageEvent<string>) => {
      const { changed, gone } = JSON.parse(data) as { changed: readonly string[]; gone: readonly string[] };
      if (isNews(changed, gone)) note({ hasNews: true });
    });
    stream.addEventListener("resync", () => note({ hasNews: true }));
    stream.addEventListener("error", () => note({ isTold: false }));
    stream.addEventListener("end", () => (close(), schedule()));
  };
  const onVisibility = (): void => {
    close();
    if (!document.hidden) open();
    note({ hasNews: true });
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
