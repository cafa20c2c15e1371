/** Why the login with an identity provider failed. The URL holds a known code; none of its text is shown. */

import type { IdentityProvider } from "../api/routes";

const MESSAGES: Readonly<Record<string, (title: string) => string>> = {
  declined: (title) => `${title} did not log you in. Try again, or ask the administrator of ${title}.`,
  expired: () => "The login expired, or was started in another browser. Please try again.",
  refused: (title) =>
    `${title} knows you, but Watchbill refused the login: your e-mail address may not be verified, or your account is disabled here. ` +
    "Try again; if that does not help, ask your administrator.",
  busy: () => "Too many failed attempts. Please wait a minute and try again.",
  away: (title) => `${title} does not respond. Please try again in a moment.`,
};

/** The message for the parameters `failed` and `issuer` of the URL; undefined if nothing failed. */
export function signInError(query: URLSearchParams, providers: readonly IdentityProvider[]): string | undefined {
  const code = query.get("failed");
  if (code === null) return undefined;
  const title = providers.find((provider) => provider.name === query.get("issuer"))?.title ?? "The identity provider";
  const message = Object.hasOwn(MESSAGES, code) ? MESSAGES[code] : undefined;
  return message === undefined ? "Login failed. Please try again." : message(title);
}
