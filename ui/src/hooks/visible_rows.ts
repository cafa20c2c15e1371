/** Which rows of equal height are on the screen, whatever the length of the list. */

import { useCallback, useLayoutEffect, useState } from "preact/hooks";

/** Browsers stop laying out somewhat above this height; longer lists scroll in proportion. */
const MAX_HEIGHT = 15_000_000;
const OVERSCAN = 8;

export interface VisibleRows {
  readonly first: number;
  readonly last: number;
  /** Where the first row stands, in pixels from the top of the list. */
  readonly top: number;
  readonly height: number;
  readonly onScroll: () => void;
  readonly scrollTo: (index: number) => void;
}

export function useVisibleRows(
  scroller: { readonly current: HTMLElement | null },
  total: number,
  rowHeight: number,
  headHeight: number,
): VisibleRows {
  const [box, setBox] = useState({ top: 0, height: 800 });
  const measure = useCallback(() => {
    const element = scroller.current;
    if (element === null) return;
    const next = { top: element.scrollTop, height: element.clientHeight };
    setBox((old) => (old.top === next.top && old.height === next.height ? old : next));
  }, []);
  useLayoutEffect(() => {
    measure();
    const observer = new ResizeObserver(measure);
    if (scroller.current !== null) observer.observe(scroller.current);
    return () => observer.disconnect();
  }, []);

  const natural = total * rowHeight;
  const height = Math.min(natural, MAX_HEIGHT);
  const visible = Math.max(1, Math.ceil((box.height - headHeight) / rowHeight));
  const scrollable = Math.max(1, height - (box.height - headHeight));
  const position =
    natural <= MAX_HEIGHT ? box.top / rowHeight : (box.top / scrollable) * Math.max(0, total - visible);
  const first = Math.max(0, Math.floor(position) - OVERSCAN);
  const last = Math.min(total - 1, Math.floor(position) + visible + OVERSCAN);
  const top = natural <= MAX_HEIGHT ? first * rowHeight : box.top - (position - first) * rowHeight;

  const scrollTo = (index: number): void => {
    const element = scroller.current;
    if (element === null) return;
    const start = natural <= MAX_HEIGHT ? index * rowHeight : (index / Math.max(1, total - visible)) * scrollable;
    const room = element.clientHeight - headHeight;
    if (start < element.scrollTop) element.scrollTop = start;
    else if (start + rowHeight > element.scrollTop + room) element.scrollTop = start + rowHeight - room;
  };
  return { first, last, top, height, onScroll: measure, scrollTo };
}
