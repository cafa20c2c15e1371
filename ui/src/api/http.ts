/** Requests to the server: same origin, with the session cookie, JSON, errors in the contract's shape. */

import { BASE_PATH } from "../base_path";
import { serverNow, setServerTime } from "./server_clock";

/** Why there is no answer of the server: these are not the server's own errors. */
export type NoAnswer =
  /** This browser has no network. */
  | "offline"
  /** Nothing came back in time. */
  | "timeout"
  /** The connection failed. */
  | "unreachable"
  /** Something between this browser and the server answered in its place. */
  | "proxy";

export class ApiError extends Error {
  constructor(
    /** The HTTP status, 0 if there was none. */
    readonly status: number,
    message: string,
    readonly details: string | undefined,
    readonly noAnswer?: NoAnswer,
  ) {
    super(message);
  }
}

export interface Answer<T> {
  readonly body: T;
  /** The server's clock when it answered, for everything that is compared with its instants. */
  readonly at: number;
}

const TIMEOUT_SECONDS = 15;

let onSessionEnd: () => void = () => undefined;

/** Sets what is called when a response says that the session has ended. */
export function setSessionEndListener(listener: () => void): void {
  onSessionEnd = listener;
}

/** Raises ApiError. */
export async function getJson<T>(path: string, signal?: AbortSignal): Promise<Answer<T>> {
  const response = await send(path, { method: "GET" }, signal);
  if (!isJson(response)) throw notFromServer(response);
  return { body: (await response.json()) as T, at: serverClock(response) };
}

/** Raises ApiError for every status that is not 2xx. */
export async function send(path: string, init: RequestInit, signal?: AbortSignal): Promise<Response> {
  const limit = AbortSignal.timeout(TIMEOUT_SECONDS * 1_000);
  let response: Response;
  try {
    response = await fetch(BASE_PATH + path, {
      ...init,
      credentials: "same-origin",
      headers: { Accept: "application/json", ...init.headers },
      signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw noAnswer(limit.aborted);
  }
  if (response.ok) return response;
  const failure = await errorOf(response);
  if (response.status === 401 && path !== "/api/v1/session") onSessionEnd();
  throw failure;
}

function noAnswer(isTimeout: boolean): ApiError {
  if (!navigator.onLine) return new ApiError(0, "This browser is offline.", undefined, "offline");
  if (isTimeout) return new ApiError(0, `No response within ${TIMEOUT_SECONDS} seconds.`, undefined, "timeout");
  return new ApiError(0, "The server cannot be reached.", undefined, "unreachable");
}

function isJson(response: Response): boolean {
  return (response.headers.get("Content-Type") ?? "").includes("json");
}

function notFromServer(response: Response): ApiError {
  const message = `Something in front of the server responded with status ${response.status}.`;
  return new ApiError(response.status, message, undefined, "proxy");
}

async function errorOf(response: Response): Promise<ApiError> {
  if (!isJson(response)) return notFromServer(response);
  const { message, details } = (await response.json()) as { message?: unknown; details?: unknown };
  return new ApiError(
    response.status,
    typeof message === "string" ? message : `The server responded with status ${response.status}.`,
    typeof details === "string" ? details : undefined,
  );
}

function serverClock(response: Response): number {
  const date = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isNaN(date)) return serverNow();
  setServerTime(date);
  return date;
}
