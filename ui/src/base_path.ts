/** Below which path of its origin the server is: "" or, behind a prefix, such as "/watchbill". Holds in workers too. */
export const BASE_PATH = /^(.*)\/assets\/[^/]+$/u.exec(new URL(import.meta.url).pathname)?.[1] ?? "";

/** The server's address, for commands and links that are used elsewhere. */
export function serverUrl(): string {
  return self.location.origin + BASE_PATH;
}

/** A path of the browser's address as the page knows it. */
export function withoutBasePath(path: string): string {
  const isBelow = BASE_PATH !== "" && (path === BASE_PATH || path.startsWith(`${BASE_PATH}/`));
  return isBelow ? path.slice(BASE_PATH.length) || "/" : path;
}
