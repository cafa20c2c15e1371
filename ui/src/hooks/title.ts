import { useEffect } from "preact/hooks";
import { visible } from "../model/visible_text";

/** The title of the browser's tab while the component is mounted; undefined leaves it as it is. */
export function useTitle(title: string | undefined): void {
  useEffect(() => {
    if (title === undefined) return undefined;
    const previous = document.title;
    document.title = `${visible(title)} · Watchbill`;
    return () => {
      document.title = previous;
    };
  }, [title]);
}
