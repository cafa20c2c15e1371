/** Local preferences (theme, widths, named views), stored in this browser only. Never a secret. */

import { useState } from "preact/hooks";

const PREFIX = "watchbill.";

export function readPreference(name: string): string | undefined {
  try {
    return window.localStorage.getItem(PREFIX + name) ?? undefined;
  } catch {
    return undefined; // Storage may be forbidden; the page works without it.
  }
}

export function writePreference(name: string, value: string | undefined): void {
  try {
    if (value === undefined) window.localStorage.removeItem(PREFIX + name);
    else window.localStorage.setItem(PREFIX + name, value);
  } catch {
    // As above: nothing is lost but a preference.
  }
}

export function usePreference(name: string): [string | undefined, (value: string | undefined) => void] {
  const [value, setValue] = useState(() => readPreference(name));
  const set = (next: string | undefined): void => {
    writePreference(name, next);
    setValue(next);
  };
  return [value, set];
}
