import { useEffect, useState } from "preact/hooks";

/** Whether a media query holds now. */
export function useMedia(query: string): boolean {
  const [isTrue, setTrue] = useState(() => window.matchMedia(query).matches);
  useEffect(() => {
    const media = window.matchMedia(query);
    const update = (): void => setTrue(media.matches);
    update();
    media.addEventListener("change", update);
    return () => media.removeEventListener("change", update);
  }, [query]);
  return isTrue;
}

export const NARROW = "(max-width: 720px)";

/** The frame's line would not hold all pages. */
export const MENU = "(max-width: 960px)";
