/**
 * A SharedWorker: holds one stream for all windows of the browser. Browsers open at most six HTTP/1.1 connections
 * to a server, so a stream for each window would soon leave none for anything else.
 */

import { ChangeStream, type StreamMessage } from "./change_stream";

/** What a window sends: whether it wants to receive changes. */
export type WindowMessage = "subscribe" | "unsubscribe";

const subscribers = new Set<MessagePort>();
const stream = new ChangeStream((message) => {
  for (const port of subscribers) port.postMessage(message);
});

function receive(port: MessagePort, message: WindowMessage): void {
  if (message === "subscribe") {
    subscribers.add(port);
    const state: StreamMessage = { type: stream.isOpen ? "open" : "closed" };
    port.postMessage(state);
    stream.start();
  } else {
    subscribers.delete(port);
    if (subscribers.size === 0) stream.stop();
  }
}

self.addEventListener("connect", (event) => {
  const port = (event as MessageEvent).ports[0]!;
  port.onmessage = ({ data }: MessageEvent<WindowMessage>) => receive(port, data);
});
