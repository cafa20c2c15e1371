/** What is shown where there is nothing to show: each cause looks and reads differently. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../api/http";
import { clock } from "../model/format";

export function Empty(props: { readonly title: string; readonly children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{props.title}</p>
      {props.children}
    </div>
  );
}

/** Grey bars, but only after 300 ms: what is quick needs no announcement. */
export function Skeleton({ rows = 6 }: { readonly rows?: number }) {
  const [isDue, setDue] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setDue(true), 300);
    return () => clearTimeout(timer);
  }, []);
  if (!isDue) return <div class="skeleton" aria-hidden="true" />;
  return (
    <div class="skeleton" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, index) => (
        <div class="skeleton-bar" key={index} />
      ))}
    </div>
  );
}

const TITLES: Readonly<Record<number, string>> = {
  0: "The server does not answer",
  403: "Nothing here is open to this account",
  404: "There is no such workload",
  429: "Too many requests",
  503: "The server is too busy for this question",
};

const HINTS: Readonly<Record<number, string>> = {
  0: "It is tried again every few seconds.",
  403: "An administrator can give it an access rule.",
  404: "It may never have existed, lie outside your scope, or have been deleted longer ago than history is kept.",
};

export function Failure(props: {
  readonly error: Error;
  readonly retry?: () => void;
  /** Where nothing else on the page is its heading. */
  readonly isPage?: boolean;
}) {
  const { error } = props;
  const status = error instanceof ApiError ? error.status : -1;
  const Title = props.isPage ? "h1" : "p";
  return (
    <div class="empty" role="alert">
      <Title class="empty-title">{TITLES[status] ?? "This did not work"}</Title>
      <p>{HINTS[status] ?? error.message}</p>
      {error instanceof ApiError && error.details !== undefined && <p>{error.details}</p>}
      {props.retry !== undefined && status !== 403 && status !== 404 && (
        <button type="button" class="button" onClick={props.retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** One line above old data: what is shown is not live, and how old it is. */
export function StaleBar(props: {
  readonly error: Error | undefined;
  readonly at: number | undefined;
  readonly retry: () => void;
}) {
  if (props.error === undefined) return null;
  const since = props.at === undefined ? "" : ` What you see is from ${clock(props.at)}.`;
  return (
    <div class="bar bar-warning" role="alert">
      <span>
        Not live: {props.error.message}
        {since}
      </span>
      <button type="button" class="button" onClick={props.retry}>
        Try again
      </button>
    </div>
  );
}
