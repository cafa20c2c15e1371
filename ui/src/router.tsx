/** The page's own addresses, by the history API; all of them without the base path. Knows no page and no API. */

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { BASE_PATH, withoutBasePath } from "./base_path";

export interface Route {
  readonly path: string;
  readonly query: URLSearchParams;
}

const CHANGED = "watchbill:place";
const FROM_HERE = "watchbill";

function here(): Route {
  return { path: withoutBasePath(window.location.pathname), query: new URLSearchParams(window.location.search) };
}

export function currentUrl(): string {
  return withoutBasePath(window.location.pathname) + window.location.search;
}

export function navigate(url: string, options: { replace?: boolean } = {}): void {
  if (url === currentUrl()) return;
  if (options.replace) window.history.replaceState(window.history.state, "", BASE_PATH + url);
  else window.history.pushState(FROM_HERE, "", BASE_PATH + url);
  window.dispatchEvent(new Event(CHANGED));
}

/** To where one came from within this page, or to the start. */
export function goBack(): void {
  if (window.history.state === FROM_HERE) window.history.back();
  else navigate("/");
}

export function useRoute(): Route {
  const [route, setRoute] = useState(here);
  useEffect(() => {
    const update = (): void => setRoute(here());
    window.addEventListener("popstate", update);
    window.addEventListener(CHANGED, update);
    return () => {
      window.removeEventListener("popstate", update);
      window.removeEventListener(CHANGED, update);
    };
  }, []);
  return route;
}

type LinkProps = Omit<JSX.AnchorHTMLAttributes<HTMLAnchorElement>, "href" | "onClick"> & {
  readonly to: string;
  readonly children: ComponentChildren;
};

/** An ordinary link within the page: new tab, copy and middle click work as everywhere. */
export function Link({ to, children, ...rest }: LinkProps) {
  return (
    <a
      {...rest}
      href={BASE_PATH + to}
      onClick={(event) => {
        event.stopPropagation();
        if (event.defaultPrevented || event.button !== 0) return;
        if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        navigate(to);
      }}
    >
      {children}
    </a>
  );
}
