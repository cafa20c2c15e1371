/** What an error means for the user: whose fault it is, and what to do next. */

import { ApiError, type NoAnswer } from "../api/http";

export interface Explanation {
  readonly title: string;
  readonly hint: string;
  /** Whether the same request may succeed later. */
  readonly canRetry: boolean;
}

const RETRYING = "Retrying every few seconds.";

const WITHOUT_ANSWER: Readonly<Record<NoAnswer, Explanation>> = {
  offline: {
    title: "This browser is offline",
    hint: "Check the network connection of this computer. The page continues once it is back.",
    canRetry: true,
  },
  timeout: {
    title: "The server is slow to respond",
    hint: `The server may be overloaded, the network path to it slow, or other tabs of this browser may use all of its connections to the server. ${RETRYING}`,
    canRetry: true,
  },
  unreachable: {
    title: "The server cannot be reached",
    hint: `It may be restarting, or the network path to it is interrupted. ${RETRYING}`,
    canRetry: true,
  },
  proxy: {
    title: "A proxy responded in place of the server",
    hint: `Watchbill may be stopped behind it, or the proxy requires a login of its own. ${RETRYING}`,
    canRetry: true,
  },
};

const BY_STATUS: Readonly<Record<number, Explanation>> = {
  403: {
    title: "You do not have access",
    hint: "Ask an administrator for an access rule that covers the clusters or projects you need.",
    canRetry: false,
  },
  404: {
    title: "Workload not found",
    hint: "It may not exist, be outside your scope, or have been deleted longer ago than the retention period.",
    canRetry: false,
  },
  429: { title: "Too many requests", hint: `The server limits the requests of an account. ${RETRYING}`, canRetry: true },
};

export function explain(error: Error): Explanation {
  if (!(error instanceof ApiError))
    return {
      title: "This page has an error",
      hint: `Reload it. If the error persists, report it with this text: ${error.message}`,
      canRetry: true,
    };
  if (error.noAnswer !== undefined) return WITHOUT_ANSWER[error.noAnswer];
  const known = BY_STATUS[error.status];
  if (known !== undefined) return known;
  if (error.status === 503)
    return { title: "The server cannot answer now", hint: `${error.message} ${RETRYING}`, canRetry: true };
  if (error.status >= 500) return { title: "The server has an error", hint: error.message, canRetry: true };
  return { title: "The server refused this request", hint: error.message, canRetry: false };
}
