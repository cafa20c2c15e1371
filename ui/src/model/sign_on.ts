/** Why signing in through an issuer did not succeed. The address tells one of our words and nothing to show as it is. */

import type { Issuer } from "../api/routes";

const WORDS: Readonly<Record<string, (title: string) => string>> = {
  declined: (title) => `${title} did not sign you in. Try again, or ask whoever looks after ${title}.`,
  expired: () => "This sign-in took too long, or was begun in another browser. Please try again.",
  refused: (title) =>
    `${title} knows you, but Watchbill did not let you in: your e-mail address may not be verified, or your account disabled here. ` +
    "Try again; if that does not help, ask your administrator.",
  busy: () => "Too many failed attempts. Please wait a minute and try again.",
  away: (title) => `${title} does not answer. Please try again in a moment.`,
};

/** The sentence for what `failed` and `issuer` in the address say; undefined where nothing failed. */
export function signOnFailure(query: URLSearchParams, issuers: readonly Issuer[]): string | undefined {
  const word = query.get("failed");
  if (word === null) return undefined;
  const title = issuers.find((issuer) => issuer.name === query.get("issuer"))?.title ?? "The issuer";
  const say = Object.hasOwn(WORDS, word) ? WORDS[word] : undefined;
  return say === undefined ? "Signing in did not succeed. Please try again." : say(title);
}
