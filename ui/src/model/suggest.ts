/** "Did you mean …?": the candidate that somebody most likely meant. */

/** The least number of characters to insert, delete or replace to turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let row = 1; row <= a.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const replaced = previous[column - 1]! + (a[row - 1] === b[column - 1] ? 0 : 1);
      current.push(Math.min(replaced, previous[column]! + 1, current[column - 1]! + 1));
    }
    previous = current;
  }
  return previous[b.length]!;
}

const LONGEST = 100;

/** Ignores case; an address is also found by its part before the @. Undefined if nothing is close. */
export function nearest(value: string, candidates: readonly string[]): string | undefined {
  const wanted = value.toLowerCase().slice(0, LONGEST);
  const names = candidates.map((candidate) => [candidate, candidate.toLowerCase()] as const);
  const exact = names.find(([, name]) => name === wanted || name.split("@")[0] === wanted);
  if (exact !== undefined) return exact[0] === value ? undefined : exact[0];
  const limit = Math.max(1, Math.floor(wanted.length / 3));
  const distances = names.map(([candidate, name]) => [candidate, editDistance(wanted, name.slice(0, LONGEST))] as const);
  const [best] = distances.filter(([, distance]) => distance <= limit).sort((a, b) => a[1] - b[1]);
  return best?.[0];
}
