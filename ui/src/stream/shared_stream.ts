/** The stream of changes as this window sees it: shared with all other windows where the browser can do that. */

import { ChangeStream, type StreamMessage } from "./change_stream";
import type { WindowMessage } from "./worker";

type Listener = (message: StreamMessage) => void;

interface Connection {
  start(): void;
  stop(): void;
}

/** One view often follows another at once; the stream stays open for both. */
const LINGER_MS = 1_000;

const listeners = new Set<Listener>();
let connection: Connection | undefined;
let isOpen = false;

function notify(message: StreamMessage): void {
  if (message.type === "open" || message.type === "closed") isOpen = message.type === "open";
  for (const listener of listeners) listener(message);
}

/** A connection of this window alone, where there is no SharedWorker (as in Chrome for Android). */
function connectAlone(): Connection {
  return new ChangeStream(notify);
}

function connectShared(): Connection {
  const worker = new SharedWorker(new URL("./worker.ts", import.meta.url), { type: "module", name: "watchbill-stream" });
  const send = (message: WindowMessage): void => worker.port.postMessage(message);
  worker.port.onmessage = ({ data }: MessageEvent<StreamMessage>) => notify(data);
  worker.onerror = () => {
    connection = connectAlone();
    update();
  };
  return { start: () => send("subscribe"), stop: () => send("unsubscribe") };
}

let isStarted = false;

/** A hidden or closed window needs no changes. */
function update(): void {
  const isNeeded = listeners.size > 0 && !document.hidden;
  if (isNeeded) {
    connection ??= typeof SharedWorker === "undefined" ? connectAlone() : connectShared();
    connection.start();
  } else if (isStarted) {
    connection?.stop();
    isOpen = false;
  }
  isStarted = isNeeded;
}

document.addEventListener("visibilitychange", update);
window.addEventListener("pageshow", update);
window.addEventListener("pagehide", () => {
  connection?.stop();
  isStarted = false;
});

/** Calls the listener for every message while the window is visible; returns how to end that. */
export function listenForChanges(listener: Listener): () => void {
  listeners.add(listener);
  if (isStarted) listener({ type: isOpen ? "open" : "closed" });
  else update();
  return () => {
    listeners.delete(listener);
    setTimeout(update, LINGER_MS);
  };
}
