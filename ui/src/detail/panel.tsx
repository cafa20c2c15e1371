/** The detail beside the list: resizable by pointer and by keyboard, its width is a local preference. */

import { useRef } from "preact/hooks";
import { usePreference } from "../hooks/preference";
import { Detail } from "./detail";

const MIN = 360;
const STEP = 24;

function clamped(width: number): number {
  return Math.round(Math.max(MIN, Math.min(width, window.innerWidth - 420)));
}

export function Panel({ id, onClose }: { readonly id: string; readonly onClose: () => void }) {
  const [saved, setSaved] = usePreference("panel");
  const width = clamped(Number(saved ?? "") || 520);
  const panel = useRef<HTMLElement>(null);
  const resize = (event: PointerEvent): void => {
    event.preventDefault();
    const handle = event.currentTarget as HTMLElement;
    handle.setPointerCapture(event.pointerId);
    const right = panel.current?.getBoundingClientRect().right ?? window.innerWidth;
    const move = (moved: PointerEvent): void => setSaved(String(clamped(right - moved.clientX)));
    const end = (): void => {
      handle.removeEventListener("pointermove", move);
      handle.removeEventListener("pointerup", end);
    };
    handle.addEventListener("pointermove", move);
    handle.addEventListener("pointerup", end);
  };
  return (
    <aside class="panel" aria-label="Workload" ref={panel} style={{ width: `${width}px` }}>
      <div
        class="panel-edge"
        role="separator"
        aria-orientation="vertical"
        aria-label="Width of the panel"
        aria-valuenow={width}
        aria-valuemin={MIN}
        tabIndex={0}
        onPointerDown={resize}
        onKeyDown={(event) => {
          const by = event.key === "ArrowLeft" ? STEP : event.key === "ArrowRight" ? -STEP : 0;
          if (by === 0) return;
          event.preventDefault();
          setSaved(String(clamped(width + by)));
        }}
      />
      <div class="panel-body">
        <Detail key={id} id={id} onClose={onClose} />
      </div>
    </aside>
  );
}
