/** A small panel below a button: closes on Escape and on a click outside, gives the focus back. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

interface PopoverProps {
  readonly label: string;
  readonly button: ComponentChildren;
  readonly isOpen: boolean;
  readonly setOpen: (isOpen: boolean) => void;
  readonly children: ComponentChildren;
  readonly buttonClass?: string;
  readonly align?: "start" | "end";
  readonly title?: string;
}

export function Popover(props: PopoverProps) {
  const root = useRef<HTMLDivElement>(null);
  const trigger = useRef<HTMLButtonElement>(null);
  const { isOpen, setOpen } = props;

  useEffect(() => {
    if (!isOpen) return undefined;
    root.current?.querySelector<HTMLElement>("[data-autofocus]")?.focus();
    const onPointer = (event: PointerEvent): void => {
      if (event.target instanceof Node && !root.current?.contains(event.target)) setOpen(false);
    };
    const onKey = (event: KeyboardEvent): void => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      setOpen(false);
      trigger.current?.focus();
    };
    document.addEventListener("pointerdown", onPointer);
    document.addEventListener("keydown", onKey, true);
    return () => {
      document.removeEventListener("pointerdown", onPointer);
      document.removeEventListener("keydown", onKey, true);
    };
  }, [isOpen]);

  return (
    <div class="popover" ref={root}>
      <button
        ref={trigger}
        type="button"
        class={props.buttonClass ?? "button"}
        aria-haspopup="dialog"
        aria-expanded={isOpen}
        aria-label={props.label}
        title={props.title}
        onClick={() => setOpen(!isOpen)}
      >
        {props.button}
      </button>
      {isOpen && (
        <div class={`popover-panel align-${props.align ?? "start"}`} role="dialog" aria-label={props.label}>
          {props.children}
        </div>
      )}
    </div>
  );
}
