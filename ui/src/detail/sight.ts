import { readSight, sightUrl, type Sight } from "../model/sight";
import { currentUrl, go, usePlace } from "../router";

/** What is looked at, and how to look at something else; that takes the place of this address in the history. */
export function useSight(): [Sight, (next: Partial<Sight>) => void] {
  const sight = readSight(usePlace().query);
  return [sight, (next) => go(sightUrl(currentUrl(), { ...sight, ...next }), { replace: true })];
}
