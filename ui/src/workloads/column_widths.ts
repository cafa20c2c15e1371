/** The widths of the list's columns: the defaults, what the URL says, and what is being dragged at the moment. */

import { useState } from "preact/hooks";
import type { Widths } from "../model/view";
import { COLUMNS } from "./columns";

/** The first column, which holds the name and the message. */
export const NAME_COLUMN = "name";
const DEFAULT_WIDTHS: Widths = {
  [NAME_COLUMN]: 320,
  ...Object.fromEntries(COLUMNS.map((column) => [column.id, column.width])),
};
const MIN_NAME_WIDTH = 160;
const MIN_WIDTH = 48;
const MAX_WIDTH = 1_000;

export function clampWidth(id: string, width: number): number {
  return Math.round(Math.min(MAX_WIDTH, Math.max(id === NAME_COLUMN ? MIN_NAME_WIDTH : MIN_WIDTH, width)));
}

function widthOf(id: string, widths: Widths): number {
  return clampWidth(id, widths[id] ?? DEFAULT_WIDTHS[id] ?? MIN_WIDTH);
}

/** The value of `grid-template-columns`; the name takes what is left over. */
export function gridTemplate(ids: readonly string[], widths: Widths): string {
  return [NAME_COLUMN, ...ids]
    .map((id) => (id === NAME_COLUMN ? `minmax(${widthOf(id, widths)}px, 1fr)` : `${widthOf(id, widths)}px`))
    .join(" ");
}

/** How far from the left each pinned column stays. While columns are moved under them, the name has its least width. */
export function pinnedOffsets(pinned: readonly string[], widths: Widths): ReadonlyMap<string, number> {
  let left = widthOf(NAME_COLUMN, widths);
  return new Map(
    pinned.map((id) => {
      const offset = left;
      left += widthOf(id, widths);
      return [id, offset];
    }),
  );
}

/** The current widths, and a handler that starts to resize a column; `onDone` receives the widths when it ends. */
export function useColumnWidths(
  widths: Widths,
  onDone: (widths: Widths) => void,
): [Widths, (id: string, event: PointerEvent) => void] {
  const [dragged, setDragged] = useState<Widths | undefined>(undefined);
  const startResize = (id: string, event: PointerEvent): void => {
    event.preventDefault();
    const handle = event.currentTarget as HTMLElement;
    handle.setPointerCapture(event.pointerId);
    const startWidth = handle.parentElement!.getBoundingClientRect().width;
    let current = widths;
    const move = (moved: PointerEvent): void => {
      current = { ...widths, [id]: clampWidth(id, startWidth + moved.clientX - event.clientX) };
      setDragged(current);
    };
    const end = (): void => {
      handle.removeEventListener("pointermove", move);
      setDragged(undefined);
      onDone(current);
    };
    handle.addEventListener("pointermove", move);
    handle.addEventListener("lostpointercapture", end, { once: true });
  };
  return [dragged ?? widths, startResize];
}
