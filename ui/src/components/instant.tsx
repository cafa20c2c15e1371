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

/** The time since an instant, updated as it passes; the instant itself on hover. */
export function Age({ since, isShort = false }: { readonly since: string; readonly isShort?: boolean }) {
  const now = useNow(isShort ? 10_000 : 1_000);
  const seconds = secondsBetween(since, now);
  return (
    <time dateTime={since} title={`${localInstant(since)} · ${utcInstant(since)}`}>
      {isShort ? shortDuration(seconds) : duration(seconds)}
    </time>
  );
}
