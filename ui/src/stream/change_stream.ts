/** One connection to the server's stream of changes, opened again whenever it ends. Runs in a window or a worker. */

import { BASE_PATH } from "../base_path";

/** `/workloads/stream` without filters: it reports every workload that the user may read. */
export const STREAM_URL = `${BASE_PATH}/api/v1/workloads/stream`;

export type StreamMessage =
  /** From now on no change is missed. Something may have changed before. */
  | { readonly type: "open" }
  /** Changes are not reported at present. */
  | { readonly type: "closed" }
  /** More changed than is reported one by one. */
  | { readonly type: "resync" }
  /** Ids: `changed` exist and were written, `gone` are deleted. */
  | { readonly type: "change"; readonly changed: readonly string[]; readonly gone: readonly string[] };

const RETRY_MS = 5_000;

export class ChangeStream {
  private source: EventSource | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  isOpen = false;

  constructor(private readonly notify: (message: StreamMessage) => void) {}

  /** Opens the connection; does nothing if it is open or being opened. */
  start(): void {
    if (this.source !== undefined) return;
    clearTimeout(this.timer);
    const source = new EventSource(STREAM_URL);
    this.source = source;
    source.addEventListener("ready", () => {
      this.isOpen = true;
      this.notify({ type: "open" });
    });
    source.addEventListener("change", ({ data }: MessageEvent<string>) => {
      const { changed, gone } = JSON.parse(data) as { changed: readonly string[]; gone: readonly string[] };
      this.notify({ type: "change", changed, gone });
    });
    source.addEventListener("resync", () => this.notify({ type: "resync" }));
    source.addEventListener("end", () => this.retry());
    source.addEventListener("error", () => this.retry());
  }

  stop(): void {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = undefined;
    this.isOpen = false;
  }

  private retry(): void {
    this.stop();
    this.notify({ type: "closed" });
    this.timer = setTimeout(() => this.start(), RETRY_MS);
  }
}
