/** The server's time: ages and ranges are compared with its instants, and this machine's clock may be wrong. */

/** An answer names its time in whole seconds and takes a moment to arrive; a smaller difference means nothing. */
const TOLERANCE_MS = 2_000;

let offset = 0;

/** Takes note of the time in an answer that has just arrived. */
export function setServerTime(serverTime: number): void {
  const difference = serverTime - Date.now();
  offset = Math.abs(difference) <= TOLERANCE_MS ? 0 : difference;
}

/** Milliseconds since 1970 by the server's clock. */
export function serverNow(): number {
  return Date.now() + offset;
}
