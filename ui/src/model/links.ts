/** URLs come from clusters and are not trusted. */

const HIDES_SOMETHING = /[\p{C}\p{Z}]/u;
const IS_WEB = /^https?:\/\/[^/\\]/iu;

/**
 * The address in its normal form if it is an absolute http or https URL that hides nothing: no other scheme,
 * no control or formatting characters, no blanks, no name and password before the host. Otherwise undefined: show it as text.
 */
export function safeLink(address: string | undefined): string | undefined {
  if (address === undefined || !IS_WEB.test(address)) return undefined;
  if (HIDES_SOMETHING.test(address) || address.includes("\\")) return undefined;
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    return undefined;
  }
  const isWeb = url.protocol === "https:" || url.protocol === "http:";
  return isWeb && url.username === "" && url.password === "" && url.host !== "" ? url.href : undefined;
}

/** A path within this page, for the way back after logging in; anything else becomes the start page. */
export function safePath(path: string | null | undefined): string {
  if (path === null || path === undefined) return "/";
  if (!path.startsWith("/") || path.startsWith("//") || /[\\\u0000-\u001f]/u.test(path)) return "/";
  return path.startsWith("/login") ? "/" : path;
}
