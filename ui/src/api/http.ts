/** Requests to the server: same origin, with the session cookie, JSON, errors in the contract's shape. */

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly details: string | undefined,
  ) {
    super(message);
  }

  /** The server could not be reached. */
  get isOffline(): boolean {
    return this.status === 0;
  }
}

export interface Answer<T> {
  readonly body: T;
  /** The server's clock when it answered, for everything that is compared with its instants. */
  readonly at: number;
}

const TIMEOUT_MS = 15_000;

let onSessionEnd: () => void = () => undefined;

/** Sets what is called when a response says that the session has ended. */
export function setSessionEndListener(listener: () => void): void {
  onSessionEnd = listener;
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<Answer<T>> {
  const response = await send(path, { method: "GET" }, signal);
  return { body: (await response.json()) as T, at: serverClock(response) };
}

export async function send(path: string, init: RequestInit, signal?: AbortSignal): Promise<Response> {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  let response: Response;
  try {
    response = await fetch(path, {
      ...init,
      credentials: "same-origin",
      headers: { Accept: "application/json", ...init.headers },
      signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The server does not respond.", undefined);
  }
  if (response.ok) return response;
  const failure = await failureOf(response);
  if (response.status === 401 && path !== "/api/v1/session") onSessionEnd();
  throw failure;
}

async function failureOf(response: Response): Promise<ApiError> {
  const fallback = `The server responded with status ${response.status}.`;
  try {
    const body: unknown = await response.json();
    if (typeof body === "object" && body !== null) {
      const { message, details } = body as { message?: unknown; details?: unknown };
      return new ApiError(
        response.status,
        typeof message === "string" ? message : fallback,
        typeof details === "string" ? details : undefined,
      );
    }
  } catch {
    // A proxy in between may answer in HTML; the status says enough.
  }
  return new ApiError(response.status, fallback, undefined);
}

function serverClock(response: Response): number {
  const date = Date.parse(response.headers.get("Date") ?? "");
  return Number.isNaN(date) ? Date.now() : date;
}
