import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ChangeStream, type StreamMessage } from "../src/stream/change_stream";

/** An EventSource whose events the test sends. */
class FakeEventSource extends EventTarget {
  static opened: FakeEventSource[] = [];
  isClosed = false;

  constructor(readonly url: string) {
    super();
    FakeEventSource.opened.push(this);
  }

  close(): void {
    this.isClosed = true;
  }

  send(type: string, data: unknown = {}): void {
    this.dispatchEvent(new MessageEvent(type, { data: JSON.stringify(data) }));
  }
}

let messages: StreamMessage[];
let stream: ChangeStream;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("EventSource", FakeEventSource);
  FakeEventSource.opened = [];
  messages = [];
  stream = new ChangeStream((message) => messages.push(message));
  stream.start();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("the stream of changes", () => {
  it("opens one connection without filters, however often it is started", () => {
    stream.start();
    expect(FakeEventSource.opened.map(({ url }) => url)).toEqual(["/api/v1/workloads/stream"]);
  });

  it("passes on what the server reports", () => {
    const source = FakeEventSource.opened[0]!;
    source.send("ready");
    source.send("change", { at: "2026-11-29T00:00:00Z", counts: {}, changed: ["a"], gone: ["b"] });
    source.send("resync", { reason: "too-many" });
    expect(messages).toEqual([
      { type: "open" },
      { type: "change", changed: ["a"], gone: ["b"] },
      { type: "resync" },
    ]);
  });

  it.each(["end", "error"])("opens again after %s, and says that changes are not reported meanwhile", (event) => {
    const source = FakeEventSource.opened[0]!;
    source.send("ready");
    source.send(event);
    expect(source.isClosed).toBe(true);
    expect([stream.isOpen, messages.at(-1)]).toEqual([false, { type: "closed" }]);
    vi.runOnlyPendingTimers();
    expect(FakeEventSource.opened).toHaveLength(2);
    FakeEventSource.opened[1]!.send("ready");
    expect([stream.isOpen, messages.at(-1)]).toEqual([true, { type: "open" }]);
  });

  it("stays closed once it is stopped", () => {
    FakeEventSource.opened[0]!.send("error");
    stream.stop();
    vi.runAllTimers();
    expect(FakeEventSource.opened).toHaveLength(1);
  });
});
