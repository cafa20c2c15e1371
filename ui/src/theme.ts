/** Light, dark, or as the system says. The colours themselves are one set of tokens in the style sheet. */

import { useEffect, useState } from "preact/hooks";
import { readPreference, usePreference } from "./hooks/preference";
import { useMedia } from "./hooks/media";

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

function themeOf(text: string | undefined): Theme {
  return THEMES.find((theme) => theme === text) ?? "system";
}

export function applyTheme(theme: Theme = themeOf(readPreference("theme"))): void {
  if (theme === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
}

const DARK = "(prefers-color-scheme: dark)";
const CHANGED = "watchbill:theme";

/** Which of the two schemes is in force, for what is drawn and not styled. */
export function useIsDark(): boolean {
  const isSystemDark = useMedia(DARK);
  const [theme, setTheme] = useState(() => themeOf(readPreference("theme")));
  useEffect(() => {
    const update = (): void => setTheme(themeOf(readPreference("theme")));
    window.addEventListener(CHANGED, update);
    return () => window.removeEventListener(CHANGED, update);
  }, []);
  return theme === "system" ? isSystemDark : theme === "dark";
}

export function useTheme(): [Theme, (theme: Theme) => void] {
  const [kept, setKept] = usePreference("theme");
  const set = (theme: Theme): void => {
    setKept(theme);
    applyTheme(theme);
    window.dispatchEvent(new Event(CHANGED));
  };
  return [themeOf(kept), set];
}

/** The colour of a token in the current scheme; a canvas cannot use CSS variables. */
export function resolved(element: HTMLElement, token: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${token})`;
  element.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
