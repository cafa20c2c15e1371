import { describe, expect, it } from "vitest";
import { listCommand, listCurl, shellQuoted } from "../src/model/commands";
import { filterParameter, narrowed, parseFilter, problemOf, type InvalidFilter } from "../src/model/filter";
import { allocation, bytes, duration, memory, quantity } from "../src/model/format";
import { safeLink, safePath } from "../src/model/links";
import { columnsOf, chartState, CHARTS, shortDevice } from "../src/model/metrics";
import { signInError } from "../src/model/login_error";
import { meantFilters, unknownParameters } from "../src/unknown_parameters";
import { DEFAULT_VIEW, filterQuery, listUrl, readView, viewUrl, type View } from "../src/model/view";

describe("safeLink", () => {
  it.each([
    ["https://a.example.com/x?y=1#z", "https://a.example.com/x?y=1#z"],
    ["http://10.0.0.1:8080", "http://10.0.0.1:8080/"],
    ["HTTPS://A.example.com", "https://a.example.com/"],
  ])("takes %s", (given, link) => expect(safeLink(given)).toBe(link));

  it.each([
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    " javascript:alert(1)",
    "java\tscript:alert(1)",
    "java\nscript:alert(1)",
    "\u0001javascript:alert(1)",
    "data:text/html,x",
    "vbscript:x",
    "file:///etc/passwd",
    "blob:https://a.example.com/1",
    "//evil.example.com",
    "/\\evil.example.com",
    "https:evil.example.com",
    "https:/evil.example.com",
    "https:\\\\evil.example.com",
    "https://good.example.com@evil.example.com/",
    "https://u:p@evil.example.com/",
    "https://good.example.com\\@evil.example.com/",
    "https://a.example.com/\u202ex",
    "https://a.example.com/a b",
    "ht\ntps://a.example.com",
    "https://",
    "https://[",
    "a.example.com",
    "",
    undefined,
  ])("refuses %j", (given) => expect(safeLink(given)).toBeUndefined());
});

describe("safePath", () => {
  it.each([
    ["/fleet?x=1", "/fleet?x=1"],
    ["//evil.example.com", "/"],
    ["/\\evil.example.com", "/"],
    ["https://evil.example.com", "/"],
    ["/login?next=/", "/"],
    [null, "/"],
  ])("%j becomes %s", (given, path) => expect(safePath(given)).toBe(path));
});

describe("filters", () => {
  it("are read by the longest field and the first operator", () => {
    expect(parseFilter("idleAllocatedGpus>=0.5")).toEqual({
      field: "idleAllocatedGpus",
      operator: ">=",
      value: "0.5",
    });
    expect(parseFilter("name=@a==b,c")).toEqual({ field: "name", operator: "=@", value: "a==b,c" });
  });

  it.each<[string, string, object | undefined]>([
    ["projectNmae==vision", "no field 'projectNmae'", { field: "projectName", operator: "==", value: "vision" }],
    ["wxyz==1", "no field 'wxyz'", undefined],
    ["phase==pending", "no phase 'pending'", { field: "phase", operator: "==", value: "Pending" }],
    ["phase!=Runing", "no phase 'Runing'", { field: "phase", operator: "!=", value: "Running" }],
    ["phase==zzzzzz", "no phase 'zzzzzz'", undefined],
    ["allocatedGPU=@4", "cannot be compared with =@", undefined],
    ["allocatedGPU>=many", "must be a number", undefined],
    ["createdAt>=soon", "must be a date", undefined],
    ["name==", "Enter a value", undefined],
    ["pending", "is not a filter", undefined],
    ["", "is not a filter", undefined],
  ])("that cannot be applied say why: %s", (text, problem, suggestion) => {
    const invalid = parseFilter(text) as InvalidFilter;
    expect(invalid.problem).toContain(problem);
    expect(invalid.suggestion).toEqual(suggestion);
  });

  it("are added to the others, in place of another value of the field", () => {
    const phase = { field: "phase", operator: "==", value: "Running" };
    const project = { field: "projectName", operator: "==", value: "vision" };
    const added = { ...project, value: "speech" };
    expect(narrowed([phase], "projectName", "vision")).toEqual([phase, project]);
    expect(narrowed([phase, project], "projectName", "speech")).toEqual([phase, added]);
  });

  it("are sent as a list, or as JSON where a comma could mislead", () => {
    const phase = { field: "phase", operator: "==", value: "Running" };
    expect(filterParameter([phase, { ...phase, value: "Failed" }])).toBe("phase==Running,phase==Failed");
    const name = { field: "name", operator: "==", value: "a,phase==b" };
    expect(filterParameter([phase, name])).toBe('["phase==Running","name==a,phase==b"]');
  });

  it("tell what does not fit their field", () => {
    expect(problemOf({ field: "allocatedGPU", operator: ">=", value: "many" })).toContain("number");
    expect(problemOf({ field: "createdAt", operator: ">=", value: "soon" })).toContain("date");
    expect(problemOf({ field: "name", operator: "==", value: "a" })).toBeUndefined();
  });
});

describe("views", () => {
  it("survive their URL", () => {
    const view: View = {
      filters: [
        { field: "name", operator: "=@", value: "a&b=c,d" },
        { field: "phase", operator: "==", value: "Pending" },
      ],
      invalidFilters: [{ text: "phase~Pending", problem: expect.stringContaining("FIELD OPERATOR VALUE") }],
      search: "x y%",
      isDeleted: true,
      isAll: true,
      sortBy: "name",
      isDescending: false,
      columns: ["phase", "gpu"],
      widths: { name: 400, gpu: 60 },
      pinned: ["phase"],
      isCompact: true,
      openId: "00000000-0000-0000-0000-000000000001",
    };
    expect(readView(new URL(viewUrl(view), "http://x").searchParams)).toEqual(view);
  });

  it("have the shortest URL when nothing is special", () => {
    expect(viewUrl(DEFAULT_VIEW)).toBe("/");
    expect(readView(new URLSearchParams())).toEqual(DEFAULT_VIEW);
  });
});

describe("AI work", () => {
  it("is shown alone unless all is asked for or a filter chooses", () => {
    expect(filterQuery(DEFAULT_VIEW).get("filterBy")).toBe("workloadClass!=General");
    expect(filterQuery({ ...DEFAULT_VIEW, isAll: true }).get("filterBy")).toBeNull();
    const general = { field: "workloadClass", operator: "==", value: "General" };
    expect(filterQuery({ ...DEFAULT_VIEW, filters: [general] }).get("filterBy")).toBe("workloadClass==General");
  });

  it("is not all that a link from a figure leads to", () => {
    expect(listUrl([["phase", "==", "Pending"]])).toBe("/?all=true&filterBy=phase%3D%3DPending");
  });
});

describe("commands", () => {
  it("quote for a shell", () => {
    expect(shellQuoted("a'b $(c)")).toBe(`'a'\\''b $(c)'`);
    const view = { ...DEFAULT_VIEW, search: "it's; rm -rf /" };
    expect(listCurl(view, "http://x")).toContain(`'search=it'\\''s; rm -rf /'`);
    expect(listCommand(view)).toContain(`--search 'it'\\''s; rm -rf /'`);
  });
});

describe("stats", () => {
  it.each([
    [0, "0s"],
    [59, "59s"],
    [60, "1m"],
    [7_860, "2h 11m"],
    [86_400 * 5, "5d"],
    [-3, "0s"],
  ])("%i seconds are %s", (seconds, text) => expect(duration(seconds)).toBe(text));

  it("read Kubernetes quantities", () => {
    expect(quantity("64Mi")).toBe(64 * 2 ** 20);
    expect(quantity("64M")).toBe(64e6);
    expect(quantity("1e3")).toBe(1000);
    expect(quantity("1.5x")).toBeUndefined();
    expect(memory("4096Mi")).toBe("4 GiB");
    expect(memory("odd")).toBe("odd");
    expect(bytes(1536)).toBe("1.5 KiB");
  });
});

describe("charts", () => {
  const spec = CHARTS.find((chart) => chart.title === "GPU memory")!;
  const type = "GPU_MEMORY_USAGE_BYTES";
  const at = "2026-11-23T12:00:00Z";

  it("tell zero, no samples, no source and an unreachable source apart", () => {
    expect(chartState(spec, [{ type, values: [{ value: "0", timestamp: at }] }]).kind).toBe("lines");
    expect(chartState(spec, [{ type, values: [] }]).kind).toBe("empty");
    expect(chartState(spec, [{ type, values: null, labels: { reason: "unsupported" } }]).kind).toBe("unsupported");
    expect(chartState(spec, [{ type, values: null, labels: { reason: "timeout" } }])).toEqual({
      kind: "unreachable",
      reason: "timeout",
    });
  });

  it("leave gaps as gaps", () => {
    const line = (points: [number, number][]) => ({ id: "", label: "", isThin: false, points: new Map(points) });
    expect(columnsOf([line([[1, 5], [3, 6]]), line([[2, 7]])])).toEqual({
      at: [1, 2, 3],
      values: [
        [5, null, 6],
        [null, 7, null],
      ],
    });
  });
});

describe("devices", () => {
  it("go by the beginning of their UUID, instances by their number too", () => {
    expect(shortDevice("GPU-1fd85434-ee1b-5295-bf5f-28ebd0453325")).toBe("GPU 1fd85434");
    expect(shortDevice("GPU-1fd85434-ee1b-5295-bf5f-28ebd0453325/7")).toBe("GPU 1fd85434/7");
    expect(shortDevice("<img src=x>")).toBe("GPU <img src=x>");
  });
});

describe("signInError", () => {
  const issuers = [{ name: "corp", title: "Example Corp" }];
  const message = (query: string) => signInError(new URLSearchParams(query), issuers);

  it("says nothing where nothing failed", () => expect(message("next=/")).toBeUndefined());

  it.each(["declined", "expired", "refused", "busy", "away"])("has words for %s", (word) =>
    expect(message(`failed=${word}&issuer=corp`)).not.toContain("Login failed"),
  );

  it("names only issuers that there are", () => {
    expect(message("failed=away&issuer=corp")).toContain("Example Corp");
    expect(message("failed=away&issuer=<b>evil</b>")).toBe("The identity provider does not respond. Please try again in a moment.");
  });

  it.each(["<img src=x>", "constructor", "__proto__", ""])("shows nothing of %s", (word) =>
    expect(message(`failed=${encodeURIComponent(word)}`)).toBe("Login failed. Please try again."),
  );
});

it.each<[number | null | undefined, string]>([
  [undefined, "0"],
  [0.5, "0.5"],
  [null, "?"],
])("writes %s allocated GPUs as %s", (gpus, written) => expect(allocation(gpus)).toBe(written));

describe("an address that says what a page does not know", () => {
  const route = (path: string, query: string) => ({ path, query: new URLSearchParams(query) });

  it.each<[string, string, string, readonly string[]]>([
    ["/", "phase=Pending", "phase", ["phase==Pending"]],
    ["/", "phase=Pending&phase=Running", "phase", ["phase==Pending", "phase==Running"]],
    ["/", "phase=", "phase", []],
    ["/", "phase=Running&".repeat(9), "phase", []],
    ["/workloads", "projectName=a%26b", "projectName", ["projectName==a&b"]],
    ["/", "team=x", "team", []],
    ["/fleet", "phase=Pending", "phase", []],
  ])("is shown the filters where it names a field: %s?%s", (path, query, name, filters) =>
    expect(meantFilters(route(path, query), name)).toEqual(filters));

  it.each<[string, string, readonly string[]]>([
    ["/", "filterBy=a==b&filterBy=c==d&deleted=true&all=false&sortOrder=desc&density=compact&tab=json&range=life", []],
    ["/", "deleted=yes&all=1&sortOrder=down&density=wide&tab=jsn&range=9y", ["deleted", "all", "sortOrder", "density", "tab", "range"]],
    ["/workloads", "search=a&search=b", ["search"]],
    ["/workloads/1", "tab=events&range=1h", []],
    ["/workloads/1", "tab=evnts&search=a", ["tab", "search"]],
    ["/fleet", "by=nodepool", []],
    ["/fleet", "by=owner", ["by"]],
    ["/projects", "sortBy=idle&sortOrder=asc", []],
    ["/projects", "sortBy=cost", ["sortBy"]],
    ["/admin", "tab=ruels", []],
    ["/nodes", "node=1&node=2", ["node"]],
  ])("is refused: %s?%s", (path, query, names) => expect(unknownParameters(route(path, query))).toEqual(names));
});
