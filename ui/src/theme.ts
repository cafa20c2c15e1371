/** Light, dark, or as the system says. The colours themselves are one set of tokens in the style sheet. */

import { keep, readKept, useKept } from "./hooks/kept";

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

function themeOf(text: string | undefined): Theme {
  return THEMES.find((theme) => theme === text) ?? "system";
}

export function applyTheme(theme: Theme = themeOf(readKept("theme"))): void {
  if (theme === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
}

export function useTheme(): [Theme, (theme: Theme) => void] {
  const [kept, setKept] = useKept("theme");
  const set = (theme: Theme): void => {
    keep("theme", theme);
    setKept(theme);
    applyTheme(theme);
  };
  return [themeOf(kept), set];
}
