import { afterEach, describe, expect, it, vi } from "vitest";
import { ApiError, getJson } from "../src/api/http";
import { explain } from "../src/model/failure";

afterEach(() => vi.unstubAllGlobals());

/** The error of a request, with this network in place of the browser's. */
async function errorWith(fetch: () => Promise<Response>, onLine = true): Promise<Error> {
  vi.stubGlobal("navigator", { onLine });
  vi.stubGlobal("fetch", fetch);
  return getJson("/api/v1/me").then(
    () => new Error("no error"),
    (error: unknown) => error as Error,
  );
}

function answer(status: number, body: string, type: string): () => Promise<Response> {
  return () => Promise.resolve(new Response(body, { status, headers: { "Content-Type": type } }));
}

const HTML = "text/html; charset=utf-8";

describe("the explanation of an error", () => {
  it.each<[string, () => Promise<Response>, boolean, string]>([
    ["no network", () => Promise.reject(new TypeError("Failed to fetch")), false, "This browser is offline"],
    ["no connection", () => Promise.reject(new TypeError("Failed to fetch")), true, "The server cannot be reached"],
    ["a proxy's error", answer(502, "<h1>Bad gateway</h1>", HTML), true, "A proxy responded in place of the server"],
    ["a portal's page", answer(200, "<h1>Log in</h1>", HTML), true, "A proxy responded in place of the server"],
    ["a refusal for now", answer(503, '{"code":503,"message":"Busy."}', "application/json"), true, "The server cannot answer now"],
    ["a fault", answer(500, '{"code":500,"message":"Fault."}', "application/json"), true, "The server has an error"],
    ["no right", answer(403, '{"code":403,"message":"No."}', "application/json"), true, "You do not have access"],
    ["a bad query", answer(400, '{"code":400,"message":"Bad."}', "application/json"), true, "The server refused this request"],
  ])("tells %s apart", async (_, fetch, onLine, title) => {
    expect(explain(await errorWith(fetch, onLine)).title).toBe(title);
  });

  it("says what the server says of its database", async () => {
    const fetch = answer(503, '{"code":503,"message":"The database is read-only."}', "application/json");
    expect(explain(await errorWith(fetch)).hint).toBe("The database is read-only. Retrying every few seconds.");
  });

  it("names a timeout", () => {
    expect(explain(new ApiError(0, "No response.", undefined, "timeout")).title).toBe("The server is slow to respond");
  });

  it("does not blame the server for the page's own error", () => {
    const { title, hint } = explain(new TypeError("x is undefined"));
    expect(title).toBe("This page has an error");
    expect(hint).toContain("x is undefined");
  });
});
