/**
 * The rows of the list, held still while the fleet moves. Knows neither DOM nor HTTP.
 *
 * A view is read as of one instant: a bound on `createdAt` (or `deletedAt`) keeps newcomers out, so that pages
 * fit together while someone scrolls. A refresh renews the documents of the visible rows in place and counts
 * what waits; only `reveal` moves rows.
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
  /** The bound field of the newest workload, which a cluster's fast clock may put ahead of the server's. */
  newest(): Promise<string | undefined>;
  page(bound: readonly Filter[], offset: number, limit: number): Promise<readonly Workload[]>;
  count(more: readonly Filter[]): Promise<number>;
  /** The workload, or undefined if it is out of reach. */
  one(id: string): Promise<Workload | undefined>;
}

export interface Waiting {
  /** Workloads that came since the view was taken. */
  readonly fresh: number;
  /** Visible rows that no longer belong here. */
  readonly left: number;
  /** The order of what is shown is no longer the order asked for. */
  readonly isMoved: boolean;
}

export class LiveRows {
  facets: Facets | undefined;
  total: number | undefined;
  error: Error | undefined;
  /** When the last refresh succeeded, by this machine's clock. */
  refreshedAt: number | undefined;
  scrollTop = 0;

  private order: (string | undefined)[] = [];
  private documents = new Map<string, Workload>();
  private pages = new Map<number, "loading" | "loaded">();
  private fresh = 0;
  private left = new Set<string>();
  private isMoved = false;
  private asOf: number | undefined;
  private first = 0;
  private last = PAGE_SIZE - 1;
  private epoch = 0;
  private listeners = new Set<() => void>();

  constructor(private readonly source: RowSource) {}

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  at(index: number): Workload | undefined {
    const id = this.order[index];
    return id === undefined ? undefined : this.documents.get(id);
  }

  /** Whether it is among the rows that were read. */
  holds(id: string): boolean {
    return this.documents.has(id);
  }

  hasLeft(id: string): boolean {
    return this.left.has(id);
  }

  indexOf(id: string): number {
    return this.order.indexOf(id);
  }

  get waiting(): Waiting {
    const growth = (this.facets?.total ?? 0) - (this.total ?? 0);
    return {
      fresh: Math.max(this.fresh, growth),
      left: Math.max(this.left.size, this.fresh - growth),
      isMoved: this.isMoved,
    };
  }

  /** The rows on the screen; pages that are missing are fetched. */
  async show(first: number, last: number): Promise<void> {
    this.first = Math.max(0, first);
    this.last = Math.max(this.first, last);
    if (this.asOf === undefined) return;
    await this.guarded(() => Promise.all(this.visiblePages().map((page) => this.load(page))));
  }

  /** Renews what is visible in place, and counts what waits. */
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
          this.countFresh(epoch),
          ...this.visiblePages().map((page) =>
            this.pages.has(page) ? this.renew(page, epoch) : this.load(page),
          ),
        ]);
      }
      if (epoch === this.epoch) this.succeeded();
    });
  }

  /** Takes the view anew: what waited is shown, in the order asked for. Old rows stay until then. */
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
      this.documents.clear();
      this.pages.clear();
      this.left.clear();
      this.fresh = 0;
      this.isMoved = false;
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
      const found = await this.source.page(this.boundAt(this.asOf), page * PAGE_SIZE, PAGE_SIZE);
      if (epoch === this.epoch) this.place(page, found);
    } catch (error) {
      if (epoch === this.epoch) this.pages.delete(page);
      throw error;
    }
  }

  private place(page: number, found: readonly Workload[]): void {
    const start = page * PAGE_SIZE;
    found.forEach((workload, index) => {
      const known = this.order.indexOf(workload.id);
      if (known !== -1 && known !== start + index) this.isMoved = true;
      this.order[start + index] = workload.id;
      this.documents.set(workload.id, workload);
    });
    this.pages.set(page, "loaded");
    if (found.length < PAGE_SIZE) this.endAt(start + found.length, found.length);
    this.forgetFarPages(page);
  }

  private endAt(end: number, found: number): void {
    if (found > 0 || end === 0 || (this.total ?? 0) > end) this.total = end;
    this.order.length = Math.min(this.order.length, end);
  }

  private async renew(page: number, epoch: number): Promise<void> {
    if (this.asOf === undefined || this.pages.get(page) !== "loaded") return;
    const start = page * PAGE_SIZE;
    const found = await this.source.page(this.boundAt(this.asOf), start, PAGE_SIZE);
    if (epoch !== this.epoch) return;
    const held = this.order.slice(start, start + PAGE_SIZE);
    const seen = new Set(found.map((workload) => workload.id));
    for (const workload of found) {
      if (this.documents.has(workload.id)) this.documents.set(workload.id, workload);
      this.left.delete(workload.id);
    }
    if (!isSameOrder(held, found, seen)) this.isMoved = true;
    const missing = held.filter((id) => id !== undefined && !seen.has(id)) as string[];
    await this.lookAfter(missing, start, epoch);
  }

  /** Rows that the page no longer holds: gone, changed, or pushed to a neighbouring page. */
  private async lookAfter(missing: readonly string[], start: number, epoch: number): Promise<void> {
    const visible = missing
      .filter((id) => {
        const index = this.order.indexOf(id, start);
        return index >= this.first && index <= this.last;
      })
      .slice(0, MAX_MISSING_CHECKED);
    await Promise.all(
      visible.map(async (id) => {
        const now = await this.source.one(id);
        if (epoch !== this.epoch) return;
        const before = this.documents.get(id);
        if (now !== undefined) this.documents.set(id, now);
        const isSame = now !== undefined && before !== undefined && isUnchanged(before, now);
        if (!isSame) this.left.add(id);
      }),
    );
  }

  private async countFresh(epoch: number): Promise<void> {
    const value = new Date(this.asOf! + 1).toISOString();
    const fresh = await this.source.count([{ field: this.source.boundField, operator: ">=", value }]);
    if (epoch === this.epoch) this.fresh = fresh;
  }

  /** Keeps memory flat however far someone scrolls. */
  private forgetFarPages(near: number): void {
    if (this.pages.size <= MAX_PAGES) return;
    const far = [...this.pages.keys()].sort((a, b) => Math.abs(b - near) - Math.abs(a - near));
    for (const page of far.slice(0, this.pages.size - MAX_PAGES)) {
      this.pages.delete(page);
      for (let index = page * PAGE_SIZE; index < (page + 1) * PAGE_SIZE; index += 1) {
        const id = this.order[index];
        if (id !== undefined) this.documents.delete(id);
        this.order[index] = undefined;
      }
    }
  }
}

/** The instant of a view: now, in the whole seconds of an answer's clock, or later if something is. */
function latest(at: number, newest: string | undefined): number {
  return Math.max(at + 999, newest === undefined ? 0 : Date.parse(newest));
}

/** Whether the rows that are in both stand in the same order; a shift by rows that went is no move. */
function isSameOrder(
  held: readonly (string | undefined)[],
  found: readonly Workload[],
  seen: ReadonlySet<string>,
): boolean {
  const common = held.filter((id) => id !== undefined && seen.has(id));
  const wanted = new Set(common);
  const now = found.filter((workload) => wanted.has(workload.id));
  return now.every((workload, index) => workload.id === common[index]);
}

function isUnchanged(before: Workload, now: Workload): boolean {
  return before.updatedAt === now.updatedAt && before.deletedAt === now.deletedAt;
}
