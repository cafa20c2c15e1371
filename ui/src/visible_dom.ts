/** Applies `visible` to every text that the page renders, so that no component can forget it. */

import { Fragment, options, type VNode } from "preact";
import { visible } from "./model/visible_text";

/** Attributes that people read or hear. Values of inputs, addresses and ids stay as they are. */
const READ_ATTRIBUTES = ["title", "aria-label", "placeholder", "label"] as const;

type Child = unknown;

function visibleChild(child: Child): Child {
  if (typeof child === "string") return visible(child);
  return Array.isArray(child) ? child.map(visibleChild) : child;
}

export function showHiddenCharacters(): void {
  const previous = options.vnode;
  options.vnode = (vnode: VNode) => {
    const isElement = typeof vnode.type === "string";
    if (isElement || vnode.type === Fragment) {
      const props = vnode.props as Record<string, unknown> & { children?: Child };
      if (props.children !== undefined) props.children = visibleChild(props.children);
      for (const name of READ_ATTRIBUTES)
        if (isElement && typeof props[name] === "string") props[name] = visible(props[name] as string);
    }
    previous?.(vnode);
  };
}
