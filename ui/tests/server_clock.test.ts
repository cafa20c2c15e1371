import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { getJson } from "../src/api/http";
import { serverNow } from "../src/api/server_clock";

const SERVER = Date.parse("2026-11-29T12:00:00Z");

beforeEach(() => vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("the server's clock", () => {
  it.each([
    ["is right", 0, SERVER],
    ["differs by less than answers can tell", 1_400, SERVER + 1_400],
    ["is an hour ahead", 3_600_000, SERVER],
    ["is a day behind", -86_400_000, SERVER],
  ])("counts where this machine's %s", async (_, ahead, now) => {
    vi.setSystemTime(SERVER + ahead);
    const headers = { "Content-Type": "application/json", Date: new Date(SERVER).toUTCString() };
    vi.stubGlobal("fetch", () => Promise.resolve(new Response("{}", { headers })));
    await getJson("/api/v1/me");
    expect(serverNow()).toBe(now);
    vi.setSystemTime(SERVER + ahead + 60_000);
    expect(serverNow()).toBe(now + 60_000);
  });
});
