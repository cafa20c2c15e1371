/** A clock for ages on the screen: one timer for the whole page, once a second while it is visible. */

import { useEffect, useState } from "preact/hooks";
import { serverNow } from "../api/server_clock";

const listeners = new Set<(now: number) => void>();
let timer: ReturnType<typeof setInterval> | undefined;

function beat(): void {
  if (document.hidden) return;
  const now = serverNow();
  for (const listener of listeners) listener(now);
}

/** The current time in milliseconds by the server's clock, updated at most every `everyMs`. */
export function useNow(everyMs = 1_000): number {
  const [now, setNow] = useState(serverNow);
  useEffect(() => {
    const listen = (next: number): void => setNow((old) => (next - old >= everyMs - 50 ? next : old));
    listeners.add(listen);
    timer ??= setInterval(beat, 1_000);
    return () => {
      listeners.delete(listen);
      if (listeners.size === 0) {
        clearInterval(timer);
        timer = undefined;
      }
    };
  }, [everyMs]);
  return now;
}
