/** The toolbar of the list: saved views, columns, density, CSV export, copy as a command. */

import { serverUrl } from "../base_path";
import { serverNow } from "../api/server_clock";
import { useState } from "preact/hooks";
import { exportUrl } from "../api/routes";
import { usePreference } from "../hooks/preference";
import { listCommand, listCurl } from "../model/commands";
import { FIELDS } from "../model/fields";
import { listUrl, readView, sortedBy, viewUrl, type View } from "../model/view";
import { copyText } from "../components/copy";
import { Popover } from "../components/popover";
import { navigate, Link } from "../router";
import { COLUMNS, defaultColumns } from "./columns";

interface ToolbarProps {
  readonly view: View;
  readonly onView: (view: View) => void;
  readonly isChoosingColumns: boolean;
  readonly setChoosingColumns: (isOpen: boolean) => void;
}

export function Toolbar(props: ToolbarProps) {
  const { view, onView } = props;
  return (
    <div class="toolbar">
      <Views view={view} />
      <button
        type="button"
        class="button"
        aria-pressed={view.isAll}
        title="Show operators, services and whatever else the clusters run, too"
        onClick={() => onView({ ...view, isAll: !view.isAll, openId: undefined })}
      >
        all workloads
      </button>
      <span class="narrow-only">
        <Sort view={view} onView={onView} />
      </span>
      <span>
        <Popover
          label="Columns"
          button="columns"
          title="Choose columns (c)"
          align="end"
          isOpen={props.isChoosingColumns}
          setOpen={props.setChoosingColumns}
        >
          <ColumnChooser view={view} onView={onView} />
        </Popover>
      </span>
      <button
        type="button"
        class="button wide-only"
        aria-pressed={view.isCompact}
        onClick={() => onView({ ...view, isCompact: !view.isCompact })}
      >
        compact
      </button>
      <a class="button" href={exportUrl(view, "csv")} download="workloads.csv" title="Download all matching workloads as CSV">
        CSV
      </a>
      <CopyAs view={view} />
    </div>
  );
}

/** Without a head to click on, as on a phone or at 200 % zoom. */
function Sort({ view, onView }: { readonly view: View; readonly onView: (view: View) => void }) {
  const direction = view.isDescending ? "descending" : "ascending";
  return (
    <span class="sort-control">
      <select
        class="button"
        aria-label="Sort by"
        value={view.sortBy}
        onChange={(event) => onView(sortedBy(view, event.currentTarget.value))}
      >
        {FIELDS.filter(({ isSortable }) => isSortable).map(({ name, label }) => (
          <option key={name} value={name}>
            {label}
          </option>
        ))}
      </select>
      <button
        type="button"
        class="button"
        aria-label={`Sorted ${direction}; reverse the order`}
        title={direction}
        onClick={() => onView(sortedBy(view, view.sortBy))}
      >
        {view.isDescending ? "↓" : "↑"}
      </button>
    </span>
  );
}

function ColumnChooser({ view, onView }: { readonly view: View; readonly onView: (view: View) => void }) {
  const defaults = defaultColumns(view.isDeleted);
  const visible = view.columns ?? defaults;
  const toggle = (id: string): void => {
    const next = COLUMNS.map((column) => column.id).filter((name) =>
      name === id ? !visible.includes(id) : visible.includes(name),
    );
    onView({ ...view, columns: next.join() === defaults.join() ? undefined : next });
  };
  const pin = (id: string): void => {
    const isPinned = view.pinned.includes(id);
    onView({ ...view, pinned: isPinned ? view.pinned.filter((other) => other !== id) : [...view.pinned, id] });
  };
  return (
    <div class="chooser">
      {COLUMNS.map((column, index) => (
        <span key={column.id} class="choice">
          <label class="check">
            <input
              type="checkbox"
              checked={visible.includes(column.id)}
              data-autofocus={index === 0 ? true : undefined}
              onChange={() => toggle(column.id)}
            />
            {column.label}
          </label>
          {visible.includes(column.id) && (
            <button
              type="button"
              class="pin wide-only"
              aria-pressed={view.pinned.includes(column.id)}
              aria-label={`Pin ${column.label}`}
              title="Pinned columns stay beside the name"
              onClick={() => pin(column.id)}
            >
              pin
            </button>
          )}
        </span>
      ))}
      <button
        type="button"
        class="button is-quiet"
        onClick={() => onView({ ...view, columns: undefined, widths: {}, pinned: [] })}
      >
        default columns
      </button>
    </div>
  );
}

function CopyAs({ view }: { readonly view: View }) {
  const [isOpen, setOpen] = useState(false);
  const [done, setDone] = useState("");
  const choices: readonly (readonly [string, () => string])[] = [
    ["Link to this view", () => serverUrl() + viewUrl(view)],
    ["curl command", () => listCurl(view, serverUrl())],
    ["watchbill command", () => listCommand(view)],
  ];
  return (
    <Popover label="Copy as" button="copy as ▾" align="end" isOpen={isOpen} setOpen={setOpen}>
      <div class="menu">
        {choices.map(([label, make], index) => (
          <button
            key={label}
            type="button"
            class="menu-item"
            data-autofocus={index === 0 ? true : undefined}
            onClick={() => void copyText(make()).then(() => setDone(label))}
          >
            {label}
          </button>
        ))}
        <p class="menu-note" role="status">
          {done === "" ? "Commands contain no credentials." : `${done} copied.`}
        </p>
      </div>
    </Popover>
  );
}

function presets(): readonly (readonly [string, string])[] {
  const yesterday = new Date(serverNow() - 86_400_000).toISOString().replace(/\.\d+Z/u, "Z");
  return [
    [
      "Pending, longest first",
      aiWorkUrl([["phase", "==", "Pending"]], { sortBy: "phaseUpdatedAt", isDescending: false }),
    ],
    [
      "Failed in the last 24 h",
      aiWorkUrl([["phase", "==", "Failed"], ["phaseUpdatedAt", ">=", yesterday]], {
        sortBy: "phaseUpdatedAt",
      }),
    ],
    ["Degraded", aiWorkUrl([["phase", "==", "Degraded"]])],
    [
      "Most GPUs allocated",
      aiWorkUrl([["allocatedGPU", ">=", "0.001"]], { sortBy: "allocatedGPU", isDescending: true }),
    ],
    ["Recently deleted", aiWorkUrl([], { isDeleted: true, sortBy: "deletedAt" })],
  ];
}

function aiWorkUrl(...[items, more]: Parameters<typeof listUrl>): string {
  return listUrl(items, { isAll: false, ...more });
}

interface NamedView {
  readonly name: string;
  readonly url: string;
}

function namedViews(json: string | undefined): readonly NamedView[] {
  try {
    const parsed: unknown = JSON.parse(json ?? "[]");
    return Array.isArray(parsed) ? parsed.filter((v) => typeof v?.name === "string" && typeof v?.url === "string") : [];
  } catch {
    return []; // The stored value was edited by hand; start with no saved views.
  }
}

function Views({ view }: { readonly view: View }) {
  const [isOpen, setOpen] = useState(false);
  const [saved, setSaved] = usePreference("views");
  const [name, setName] = useState("");
  const own = namedViews(saved);
  const openView = (url: string): void => {
    setOpen(false);
    const query = new URLSearchParams(url.split("?")[1] ?? "");
    navigate(viewUrl(readView(query)));
  };
  return (
    <Popover label="Views" button="views ▾" align="end" isOpen={isOpen} setOpen={setOpen}>
      <div class="menu">
        {presets().map(([label, url]) => (
          <Link key={label} class="menu-item" to={url}>
            {label}
          </Link>
        ))}
        {own.length > 0 && <hr />}
        {own.map((named) => (
          <div class="menu-row" key={named.name}>
            <button type="button" class="menu-item" onClick={() => openView(named.url)}>
              {named.name}
            </button>
            <button
              type="button"
              class="chip-remove"
              aria-label={`Delete the view ${named.name}`}
              onClick={() => setSaved(JSON.stringify(own.filter((other) => other !== named)))}
            >
              ×
            </button>
          </div>
        ))}
        <hr />
        <form
          class="menu-form"
          onSubmit={(event) => {
            event.preventDefault();
            if (name.trim() === "") return;
            const others = own.filter((other) => other.name !== name.trim());
            const added = { name: name.trim(), url: viewUrl({ ...view, openId: undefined }) };
            setSaved(JSON.stringify([...others, added]));
            setName("");
          }}
        >
          <input
            aria-label="Name for this view"
            placeholder="Name this view"
            value={name}
            maxLength={60}
            onInput={(event) => setName(event.currentTarget.value)}
          />
          <button type="submit" class="button">
            Save
          </button>
        </form>
        <p class="menu-note">Saved in this browser only. To share a view, send its URL.</p>
      </div>
    </Popover>
  );
}
