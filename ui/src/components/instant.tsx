import { useNow } from "../hooks/clock";
import { duration, localInstant, secondsBetween, shortDuration, utcInstant } from "../model/format";

/** Local time; UTC on hover. */
export function Instant({ at }: { readonly at: string }) {
  return (
    <time dateTime={at} title={utcInstant(at)}>
      {localInstant(at)}
    </time>
  );
}

interface AgeProps {
  readonly since: string;
  readonly isShort?: boolean;
  /** When it ended, as far as anybody knows; now where it goes on. */
  readonly until?: string | undefined;
}

/** The time since an instant, updated as it passes; the instant itself on hover. */
export function Age({ since, isShort = false, until }: AgeProps) {
  const now = useNow(isShort ? 10_000 : 1_000);
  const seconds = Math.max(0, secondsBetween(since, until === undefined ? now : Date.parse(until)));
  return (
    <time dateTime={since} title={`${localInstant(since)} · ${utcInstant(since)}`}>
      {isShort ? shortDuration(seconds) : duration(seconds)}
    </time>
  );
}
