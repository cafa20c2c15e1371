/**
 * The rows of the list, kept stable while workloads change. Knows neither DOM nor HTTP.
 *
 * A view is a snapshot: an upper bound on `createdAt` (or `deletedAt`) excludes newer workloads, so that pages
 * stay consistent while someone scrolls. A refresh updates the visible rows in place and counts the changes that
 * are not shown yet; only `reveal` moves rows.
 */

import type { Facets, Workload } from "../api/shapes";
import type { Filter } from "../model/filter";

export const PAGE_SIZE = 50;
const MAX_PAGES = 60;
const MAX_MISSING_CHECKED = 8;

export interface RowSource {
  /** `createdAt`, or `deletedAt` in the Deleted tab. */
  readonly boundField: string;
  facets(): Promise<{ body: Facets; at: number }>;
  /** The bound field of the newest workload; a cluster whose clock is fast may put it in the future. */
  newest(): Promise<string | undefined>;
  page(bound: readonly Filter[], offset: number, limit: number): Promise<readonly Workload[]>;
  count(more: readonly Filter[]): Promise<number>;
  /** The workload, or undefined if it does not exist or is outside the scope. */
  get(id: string): Promise<Workload | undefined>;
}

export interface PendingChanges {
  /** Workloads created since the snapshot. */
  readonly added: number;
  /** Visible rows that no longer match. */
  readonly removed: number;
  /** The visible rows are no longer in the requested order. */
  readonly isReordered: boolean;
}

export class LiveRows {
  facets: Facets | undefined;
  total: number | undefined;
  error: Error | undefined;
  /** When the last refresh succeeded, by this machine's clock. */
  refreshedAt: number | undefined;
  /** Whether the server reports changes; otherwise they are polled for. */
  isStreaming = false;
  scrollTop = 0;

  private order: (string | undefined)[] = [];
  /** Where each loaded workload stands in `order`. */
  private positions = new Map<string, number>();
  private documents = new Map<string, Workload>();
  private pages = new Map<number, "loading" | "loaded">();
  private added = 0;
  private removed = new Set<string>();
  private isReordered = false;
  private asOf: number | undefined;
  private first = 0;
  private last = PAGE_SIZE - 1;
  private epoch = 0;
  private listeners = new Set<() => void>();

  constructor(private readonly source: RowSource) {}

  setStreaming(isStreaming: boolean): void {
    this.isStreaming = isStreaming;
    this.notify();
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  at(index: number): Workload | undefined {
    const id = this.order[index];
    return id === undefined ? undefined : this.documents.get(id);
  }

  /** Whether the workload is among the loaded rows. */
  has(id: string): boolean {
    return this.documents.has(id);
  }

  isRemoved(id: string): boolean {
    return this.removed.has(id);
  }

  get pendingChanges(): PendingChanges {
    const growth = (this.facets?.total ?? 0) - (this.total ?? 0);
    return {
      added: Math.max(this.added, growth),
      removed: Math.max(this.removed.size, this.added - growth),
      isReordered: this.isReordered,
    };
  }

  /** Sets the visible range of rows and loads the pages that are missing. */
  async show(first: number, last: number): Promise<void> {
    this.first = Math.max(0, first);
    this.last = Math.max(this.first, last);
    if (this.asOf === undefined) return;
    await this.guarded(() => Promise.all(this.visiblePages().map((page) => this.load(page))));
  }

  /** Updates the visible rows in place and counts the changes that are not shown yet. */
  async refresh(): Promise<void> {
    const epoch = this.epoch;
    await this.guarded(async () => {
      const isFirst = this.asOf === undefined;
      const [{ body, at }, asOf] = await Promise.all([
        this.source.facets(),
        isFirst ? this.source.newest() : undefined,
      ]);
      if (epoch !== this.epoch) return;
      this.facets = body;
      if (isFirst) {
        this.asOf = latest(at, asOf);
        this.total = body.total;
        await Promise.all(this.visiblePages().map((page) => this.load(page)));
      } else {
        await Promise.all([
          this.countAdded(epoch),
          ...this.visiblePages().map((page) =>
            this.pages.has(page) ? this.update(page, epoch) : this.load(page),
          ),
        ]);
      }
      if (epoch === this.epoch) this.succeeded();
    });
  }

  /** Takes a new snapshot: shows all pending changes, in the requested order. */
  async reveal(): Promise<void> {
    const epoch = ++this.epoch;
    await this.guarded(async () => {
      const [{ body, at }, newest] = await Promise.all([this.source.facets(), this.source.newest()]);
      const asOf = latest(at, newest);
      const pages = this.visiblePages();
      const loaded = await Promise.all(
        pages.map((page) =>
          this.source.page(this.boundAt(asOf), page * PAGE_SIZE, PAGE_SIZE),
        ),
      );
      if (epoch !== this.epoch) return;
      this.order = [];
      this.positions.clear();
      this.documents.clear();
      this.pages.clear();
      this.removed.clear();
      this.added = 0;
      this.isReordered = false;
      this.asOf = asOf;
      this.facets = body;
      this.total = body.total;
      pages.forEach((page, index) => this.place(page, loaded[index]!));
      this.succeeded();
    });
  }

  private succeeded(): void {
    this.refreshedAt = Date.now();
    this.error = undefined;
  }

  private async guarded(work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.error = error instanceof Error ? error : new Error(String(error));
    }
    this.notify();
  }

  private notify(): void {
    for (const listener of this.listeners) listener();
  }

  private visiblePages(): number[] {
    const end = this.total === undefined ? this.last : Math.min(this.last, this.total - 1);
    const pages: number[] = [];
    for (let page = Math.floor(this.first / PAGE_SIZE); page * PAGE_SIZE <= end; page += 1)
      pages.push(page);
    return pages;
  }

  private boundAt(asOf: number): Filter[] {
    const value = new Date(asOf).toISOString();
    return [{ field: this.source.boundField, operator: "<=", value }];
  }

  private async load(page: number): Promise<void> {
    if (this.pages.has(page) || this.asOf === undefined) return;
    const epoch = this.epoch;
    this.pages.set(page, "loading");
    try {
      const workloads = await this.source.page(this.boundAt(this.asOf), page * PAGE_SIZE, PAGE_SIZE);
      if (epoch === this.epoch) this.place(page, workloads);
    } catch (error) {
      if (epoch === this.epoch) this.pages.delete(page);
      throw error;
    }
  }

  private place(page: number, workloads: readonly Workload[]): void {
    const start = page * PAGE_SIZE;
    workloads.forEach((workload, index) => {
      const known = this.positions.get(workload.id);
      if (known !== undefined && known !== start + index) this.isReordered = true;
      this.order[start + index] = workload.id;
      this.positions.set(workload.id, start + index);
      this.documents.set(workload.id, workload);
    });
    this.pages.set(page, "loaded");
    if (workloads.length < PAGE_SIZE) this.endAt(start + workloads.length, workloads.length);
    this.forgetFarPages(page);
  }

  private endAt(end: number, size: number): void {
    if (size > 0 || end === 0 || (this.total ?? 0) > end) this.total = end;
    this.order.length = Math.min(this.order.length, end);
  }

  private async update(page: number, epoch: number): Promise<void> {
    if (this.asOf === undefined || this.pages.get(page) !== "loaded") return;
    const start = page * PAGE_SIZE;
    const after = await this.source.page(this.boundAt(this.asOf), start, PAGE_SIZE);
    if (epoch !== this.epoch) return;
    const before = this.order.slice(start, start + PAGE_SIZE);
    const seen = new Set(after.map((workload) => workload.id));
    for (const workload of after) {
      if (this.documents.has(workload.id)) this.documents.set(workload.id, workload);
      this.removed.delete(workload.id);
    }
    if (!isSameOrder(before, after, seen)) this.isReordered = true;
    const missing = before.filter((id) => id !== undefined && !seen.has(id)) as string[];
    await this.recheck(missing, epoch);
  }

  /** Rows that their page no longer contains: deleted, changed, or shifted to a neighbouring page. */
  private async recheck(missing: readonly string[], epoch: number): Promise<void> {
    const visible = missing
      .filter((id) => {
        const index = this.positions.get(id) ?? -1;
        return index >= this.first && index <= this.last;
      })
      .slice(0, MAX_MISSING_CHECKED);
    await Promise.all(
      visible.map(async (id) => {
        const now = await this.source.get(id);
        if (epoch !== this.epoch) return;
        const before = this.documents.get(id);
        if (now !== undefined) this.documents.set(id, now);
        const isSame = now !== undefined && before !== undefined && isUnchanged(before, now);
        if (!isSame) this.removed.add(id);
      }),
    );
  }

  private async countAdded(epoch: number): Promise<void> {
    const value = new Date(this.asOf! + 1).toISOString();
    const added = await this.source.count([{ field: this.source.boundField, operator: ">=", value }]);
    if (epoch === this.epoch) this.added = added;
  }

  /** Bounds the memory, however far someone scrolls. */
  private forgetFarPages(near: number): void {
    if (this.pages.size <= MAX_PAGES) return;
    const far = [...this.pages.keys()].sort((a, b) => Math.abs(b - near) - Math.abs(a - near));
    for (const page of far.slice(0, this.pages.size - MAX_PAGES)) {
      this.pages.delete(page);
      for (let index = page * PAGE_SIZE; index < (page + 1) * PAGE_SIZE; index += 1) {
        const id = this.order[index];
        if (id !== undefined) {
          this.documents.delete(id);
          this.positions.delete(id);
        }
        this.order[index] = undefined;
      }
    }
  }
}

/** The instant of a snapshot: the server's time (whole seconds, rounded up), or later if a workload is newer. */
function latest(at: number, newest: string | undefined): number {
  return Math.max(at + 999, newest === undefined ? 0 : Date.parse(newest));
}

/** Whether the rows that are in both lists have the same order; rows that shift because others went do not count. */
function isSameOrder(
  before: readonly (string | undefined)[],
  after: readonly Workload[],
  seen: ReadonlySet<string>,
): boolean {
  const common = before.filter((id) => id !== undefined && seen.has(id));
  const commonIds = new Set(common);
  const current = after.filter((workload) => commonIds.has(workload.id));
  return current.every((workload, index) => workload.id === common[index]);
}

function isUnchanged(before: Workload, now: Workload): boolean {
  return before.updatedAt === now.updatedAt && before.deletedAt === now.deletedAt;
}
