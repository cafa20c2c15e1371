import { describe, expect, it } from "vitest";
import type { Workload } from "../src/api/shapes";
import type { Filter } from "../src/model/filter";
import { LiveRows, PAGE_SIZE, type RowSource } from "../src/workloads/live_rows";

/** A server that answers from an array, newest first, and can be taken away. */
class Fake implements RowSource {
  readonly boundField = "createdAt";
  workloads: Workload[] = [];
  isDown = false;
  requests = 0;
  now = Date.parse("2026-11-23T12:00:00Z");

  facets() {
    return this.answer(() => ({ body: { total: this.workloads.length, facets: [] }, at: this.now }));
  }

  newest() {
    return this.answer(() => this.workloads[0]?.createdAt);
  }

  page(bound: readonly Filter[], offset: number, limit: number) {
    return this.answer(() => this.matching(bound).slice(offset, offset + limit));
  }

  count(more: readonly Filter[]) {
    return this.answer(() => this.matching(more).length);
  }

  get(id: string) {
    return this.answer(() => this.workloads.find((workload) => workload.id === id));
  }

  private matching(filters: readonly Filter[]): Workload[] {
    return this.workloads.filter((workload) =>
      filters.every(({ operator, value }) =>
        operator === "<="
          ? Date.parse(workload.createdAt) <= Date.parse(value)
          : Date.parse(workload.createdAt) >= Date.parse(value),
      ),
    );
  }

  private async answer<T>(make: () => T): Promise<T> {
    this.requests += 1;
    if (this.isDown) throw new Error("down");
    return make();
  }
}

const START = Date.parse("2026-11-23T11:00:00Z");

function workload(number: number, more: Partial<Workload> = {}): Workload {
  return {
    id: `id-${number}`,
    name: `w-${number}`,
    createdAt: new Date(START - number * 1000).toISOString(),
    updatedAt: "2026-11-23T11:00:00Z",
    deletedAt: null,
    phase: "Running",
    ...more,
  } as Workload;
}

async function filled(total: number): Promise<{ fake: Fake; rows: LiveRows }> {
  const fake = new Fake();
  fake.workloads = Array.from({ length: total }, (_, number) => workload(number));
  const rows = new LiveRows(fake);
  await rows.refresh();
  return { fake, rows };
}

function names(rows: LiveRows, first: number, last: number): (string | undefined)[] {
  return Array.from({ length: last - first + 1 }, (_, at) => rows.at(first + at)?.name);
}

describe("LiveRows", () => {
  it("loads the pages that are looked at and no others", async () => {
    const { rows } = await filled(400);
    expect(rows.total).toBe(400);
    await rows.show(240, 270);
    expect(rows.at(240)?.name).toBe("w-240");
    expect(rows.at(PAGE_SIZE)).toBeUndefined();
  });

  it("changes documents in place and lets newcomers wait", async () => {
    const { fake, rows } = await filled(60);
    await rows.show(0, 20);
    fake.now += 60_000;
    fake.workloads[3] = workload(3, { phase: "Failed" });
    fake.workloads.unshift(workload(-3700, { name: "new" }));
    await rows.refresh();
    expect(rows.at(3)?.phase).toBe("Failed");
    expect(names(rows, 0, 2)).toEqual(["w-0", "w-1", "w-2"]);
    expect(rows.pendingChanges).toEqual({ added: 1, removed: 0, isReordered: false });
    await rows.reveal();
    expect(names(rows, 0, 1)).toEqual(["new", "w-0"]);
    expect(rows.pendingChanges).toEqual({ added: 0, removed: 0, isReordered: false });
  });

  it("marks a row that is gone and keeps its place", async () => {
    const { fake, rows } = await filled(30);
    await rows.show(0, 20);
    fake.workloads.splice(5, 1);
    await rows.refresh();
    expect(rows.at(5)?.name).toBe("w-5");
    expect(rows.isRemoved("id-5")).toBe(true);
    expect(rows.pendingChanges).toEqual({ added: 0, removed: 1, isReordered: false });
  });

  it("does not take a row for gone that was only pushed to the page before", async () => {
    const { fake, rows } = await filled(120);
    await rows.show(50, 70);
    fake.workloads.splice(5, 1);
    await rows.refresh();
    expect(rows.isRemoved("id-50")).toBe(false);
    expect(rows.at(50)?.name).toBe("w-50");
  });

  it("shows newcomers whose cluster's clock is ahead", async () => {
    const { fake, rows } = await filled(10);
    fake.workloads.unshift(workload(-90_000, { name: "early" }));
    await rows.refresh();
    expect(rows.pendingChanges.added).toBe(1);
    await rows.reveal();
    expect(rows.at(0)?.name).toBe("early");
    expect(rows.pendingChanges.added).toBe(0);
  });

  it("keeps what it has while the server is away, and says so", async () => {
    const { fake, rows } = await filled(10);
    let notifications = 0;
    rows.subscribe(() => (notifications += 1));
    fake.isDown = true;
    await rows.refresh();
    expect(rows.error?.message).toBe("down");
    expect(rows.at(0)?.name).toBe("w-0");
    expect(notifications).toBe(1);
    await rows.show(0, 5); // Nothing is missing, so nothing is asked; that proves nothing.
    expect(rows.error?.message).toBe("down");
    fake.isDown = false;
    await rows.refresh();
    expect(rows.error).toBeUndefined();
  });

  it("forgets pages that are far away", async () => {
    const { rows } = await filled(4_000);
    for (let first = 0; first < 4_000; first += PAGE_SIZE) await rows.show(first, first + 20);
    expect(rows.at(3_950)).toBeDefined();
    expect(rows.at(0)).toBeUndefined();
    await rows.show(0, 20);
    expect(rows.at(0)?.name).toBe("w-0");
  });
});
