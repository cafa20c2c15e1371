/** A query whose answer is refreshed while the page is visible: by the stream of changes, or by polling. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { startLiveRefresh, type RateChange } from "./live_refresh";

/** Every so many milliseconds, when the stream reports a change of the workload `id`, or only once. */
export type RefreshPolicy = number | { readonly id: string } | undefined;

export interface LiveQuery<T> {
  readonly data: T | undefined;
  /** The error of the last attempt; `data` may still hold an older answer. */
  readonly error: Error | undefined;
  /** When `data` was loaded, by this machine's clock. */
  readonly at: number | undefined;
  readonly refresh: () => void;
}

interface State<T> {
  readonly key: string;
  readonly data?: T;
  readonly error?: Error;
  readonly at?: number;
}

/** `key` identifies the query: a new key drops the old answer; undefined sends nothing. */
export function useLiveQuery<T>(
  key: string | undefined,
  fetchData: (signal: AbortSignal) => Promise<T>,
  policy: RefreshPolicy,
): LiveQuery<T> {
  const [state, setState] = useState<State<T>>({ key: key ?? "" });
  const fetcher = useRef(fetchData);
  fetcher.current = fetchData;
  const current = useRef(policy);
  current.current = policy;
  const [round, setRound] = useState(0);

  useEffect(() => {
    if (key === undefined) return undefined;
    const stop = new AbortController();
    const attempt = async (): Promise<void> => {
      try {
        const data = await fetcher.current(stop.signal);
        if (!stop.signal.aborted) setState({ key, data, at: Date.now() });
      } catch (error) {
        if (stop.signal.aborted) return;
        const failure = error instanceof Error ? error : new Error(String(error));
        setState((old) => (old.key === key ? { ...old, error: failure } : { key, error: failure }));
      }
    };
    const end = start(attempt, current.current);
    return () => {
      stop.abort();
      end();
    };
  }, [key, JSON.stringify(policy), round]);

  const refresh = useCallback(() => setRound((n) => n + 1), []);
  const isCurrent = state.key === key;
  return {
    data: isCurrent ? state.data : undefined,
    error: isCurrent ? state.error : undefined,
    at: isCurrent ? state.at : undefined,
    refresh,
  };
}

function rateFor(id: string): RateChange {
  return (changed, gone) => (changed.includes(id) || gone.includes(id) ? "yes" : "no");
}

function start(attempt: () => Promise<void>, policy: RefreshPolicy): () => void {
  if (typeof policy === "object") return startLiveRefresh(attempt, rateFor(policy.id));
  if (policy !== undefined) return repeat(attempt, policy);
  void attempt();
  return () => undefined;
}

/** Runs now and then every `everyMs` after the end of the run before, never while the page is hidden. */
function repeat(attempt: () => Promise<void>, everyMs: number): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isEnded = false;
  let isRunning = false;
  const run = async (): Promise<void> => {
    if (isRunning) return;
    isRunning = true;
    await attempt();
    isRunning = false;
    if (!isEnded && !document.hidden) timer = setTimeout(() => void run(), everyMs);
  };
  const onVisibility = (): void => {
    clearTimeout(timer);
    if (!document.hidden && !isEnded) void run();
  };
  document.addEventListener("visibilitychange", onVisibility);
  void run();
  return () => {
    isEnded = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", onVisibility);
  };
}
