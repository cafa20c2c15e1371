/** Small preferences (theme, widths, named views) that live in this browser alone. Never a secret. */

import { useState } from "preact/hooks";

const PREFIX = "watchbill.";

export function readKept(name: string): string | undefined {
  try {
    return window.localStorage.getItem(PREFIX + name) ?? undefined;
  } catch {
    return undefined; // Storage may be forbidden; the page works without it.
  }
}

export function keep(name: string, value: string | undefined): void {
  try {
    if (value === undefined) window.localStorage.removeItem(PREFIX + name);
    else window.localStorage.setItem(PREFIX + name, value);
  } catch {
    // As above: nothing is lost but a preference.
  }
}

export function useKept(name: string): [string | undefined, (value: string | undefined) => void] {
  const [value, setValue] = useState(() => readKept(name));
  const set = (next: string | undefined): void => {
    keep(name, next);
    setValue(next);
  };
  return [value, set];
}
