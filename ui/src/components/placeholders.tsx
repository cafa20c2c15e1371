/** Placeholders for content that is empty, loading, failed or stale: each cause looks and reads differently. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../api/http";
import { explain } from "../model/failure";
import { clock } from "../model/format";

export function EmptyState(props: {
  readonly title: string;
  /** Whether its title is the heading of the page. */
  readonly isPage?: boolean;
  readonly children?: ComponentChildren;
}) {
  const Title = props.isPage ? "h1" : "p";
  return (
    <div class="empty">
      <Title class="empty-title">{props.title}</Title>
      {props.children}
    </div>
  );
}

/** Grey bars, shown only if loading takes more than 300 ms. */
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

export function ErrorState(props: {
  readonly error: Error;
  readonly retry?: () => void;
  /** Whether its title is the heading of the page. */
  readonly isPage?: boolean;
}) {
  const { error } = props;
  const { title, hint, canRetry } = explain(error);
  const Title = props.isPage ? "h1" : "p";
  return (
    <div class="empty" role="alert">
      <Title class="empty-title">{title}</Title>
      <p>{hint}</p>
      {error instanceof ApiError && error.details !== undefined && <p>{error.details}</p>}
      {props.retry !== undefined && canRetry && (
        <button type="button" class="button" onClick={props.retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** One line above stale data: why it is not live, and how old it is. */
export function StaleBar(props: {
  readonly error: Error | undefined;
  readonly at: number | undefined;
  readonly retry: () => void;
}) {
  if (props.error === undefined) return null;
  const since = props.at === undefined ? "" : ` Showing data from ${clock(props.at)}.`;
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
