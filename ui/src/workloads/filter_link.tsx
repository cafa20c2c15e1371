import type { ComponentChildren } from "preact";
import { narrowed } from "../model/filter";
import { viewUrl } from "../model/view";
import { Link } from "../router";
import { useView } from "./view_context";

interface FilterLinkProps {
  readonly field: string;
  readonly value: string;
  readonly children: ComponentChildren;
  readonly class?: string;
  readonly title?: string;
  readonly tabIndex?: number;
}

/** Adds `field == value` to the filters of the current view, in place of another value of that field. */
export function FilterLink({ field, value, children, ...rest }: FilterLinkProps) {
  const view = useView();
  return (
    <Link {...rest} to={viewUrl({ ...view, filters: narrowed(view.filters, field, value), openId: undefined })}>
      {children}
    </Link>
  );
}
