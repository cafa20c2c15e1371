/** An answer kept current while the page is visible: told of changes by the stream, or asking again quietly. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { startLiveRefresh } from "./live_refresh";

/** Every so many milliseconds, when the stream at `url` names the workload `id`, or once. */
export type RefreshPolicy = number | { readonly url: string; readonly id: string } | undefined;

export interface LiveQuery<T> {
  readonly data: T | undefined;
  /** What the newest attempt failed with; `data` may still hold an older answer. */
  readonly error: Error | undefined;
  /** When `data` was answered, by this machine's clock. */
  readonly at: number | undefined;
  readonly refresh: () => void;
}

interface State<T> {
  readonly key: string;
  readonly data?: T;
  readonly error?: Error;
  readonly at?: number;
}

/** `key` names the question: a new key forgets the old answer; undefined asks nothing. */
export function useLiveQuery<T>(
  key: string | undefined,
  fetchIt: (signal: AbortSignal) => Promise<T>,
  policy: RefreshPolicy,
): LiveQuery<T> {
  const [state, setState] = useState<State<T>>({ key: key ?? "" });
  const question = useRef(fetchIt);
  question.current = fetchIt;
  const current = useRef(policy);
  current.current = policy;
  const [round, setRound] = useState(0);

  useEffect(() => {
    if (key === undefined) return undefined;
    const stop = new AbortController();
    const attempt = async (): Promise<void> => {
      try {
        const data = await question.current(stop.signal);
        if (!stop.signal.aborted) setState({ key, data, at: Date.now() });
      } catch (error) {
        if (stop.signal.aborted) return;
        const failure = error instanceof Error ? error : new Error(String(error));
        setState((old) => (old.key === key ? { ...old, error: failure } : { key, error: failure }));
      }
    };
    const end = asking(attempt, current.current);
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

function asking(attempt: () => Promise<void>, policy: RefreshPolicy): () => void {
  if (typeof policy === "object") return startLiveRefresh(policy.url, attempt, (changed, gone) => changed.includes(policy.id) || gone.includes(policy.id));
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
