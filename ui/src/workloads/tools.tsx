/** The tools at the right of the list: named views, columns, density, CSV, copy as a command. */

import { useState } from "preact/hooks";
import { exportUrl } from "../api/routes";
import { useKept } from "../hooks/kept";
import { asCommand, asCurl } from "../model/commands";
import { listUrl, readView, viewUrl, type View } from "../model/view";
import { copyText } from "../parts/copy";
import { Popover } from "../parts/popover";
import { go, Link } from "../router";
import { COLUMNS, usualColumns } from "./columns";

interface ToolsProps {
  readonly view: View;
  readonly onView: (view: View) => void;
  readonly isChoosingColumns: boolean;
  readonly setChoosingColumns: (isOpen: boolean) => void;
}

export function Tools(props: ToolsProps) {
  const { view, onView } = props;
  return (
    <div class="tools">
      <Views view={view} />
      <span class="wide-only">
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
      <a class="button" href={exportUrl(view, "csv")} download="workloads.csv" title="All that match, as CSV">
        CSV
      </a>
      <CopyAs view={view} />
    </div>
  );
}

function ColumnChooser({ view, onView }: { readonly view: View; readonly onView: (view: View) => void }) {
  const usual = usualColumns(view.isDeleted);
  const visible = view.columns ?? usual;
  const toggle = (id: string): void => {
    const next = COLUMNS.map((column) => column.id).filter((name) =>
      name === id ? !visible.includes(id) : visible.includes(name),
    );
    onView({ ...view, columns: next.join() === usual.join() ? undefined : next });
  };
  return (
    <div class="chooser">
      {COLUMNS.map((column, index) => (
        <label key={column.id} class="check">
          <input
            type="checkbox"
            checked={visible.includes(column.id)}
            data-autofocus={index === 0 ? true : undefined}
            onChange={() => toggle(column.id)}
          />
          {column.label}
        </label>
      ))}
      <button type="button" class="button is-quiet" onClick={() => onView({ ...view, columns: undefined })}>
        usual columns
      </button>
    </div>
  );
}

function CopyAs({ view }: { readonly view: View }) {
  const [isOpen, setOpen] = useState(false);
  const [done, setDone] = useState("");
  const choices: readonly (readonly [string, () => string])[] = [
    ["Link to this view", () => window.location.origin + viewUrl(view)],
    ["curl command", () => asCurl(view, window.location.origin)],
    ["watchbill command", () => asCommand(view)],
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
          {done === "" ? "Commands hold no secret." : `${done}: copied.`}
        </p>
      </div>
    </Popover>
  );
}

function presets(): readonly (readonly [string, string])[] {
  const yesterday = new Date(Date.now() - 86_400_000).toISOString().replace(/\.\d+Z/u, "Z");
  return [
    [
      "Pending, longest first",
      listUrl([["phase", "==", "Pending"]], { sortBy: "phaseUpdatedAt", isDescending: false }),
    ],
    [
      "Failed in the last day",
      listUrl([["phase", "==", "Failed"], ["phaseUpdatedAt", ">=", yesterday]], {
        sortBy: "phaseUpdatedAt",
      }),
    ],
    ["Degraded", listUrl([["phase", "==", "Degraded"]])],
    [
      "Most GPUs allocated",
      listUrl([["allocatedGPU", ">=", "0.001"]], { sortBy: "allocatedGPU", isDescending: true }),
    ],
    ["Recently deleted", listUrl([], { isDeleted: true, sortBy: "deletedAt" })],
  ];
}

interface NamedView {
  readonly name: string;
  readonly url: string;
}

function namedViews(kept: string | undefined): readonly NamedView[] {
  try {
    const read: unknown = JSON.parse(kept ?? "[]");
    return Array.isArray(read) ? read.filter((v) => typeof v?.name === "string" && typeof v?.url === "string") : [];
  } catch {
    return []; // Someone edited the storage by hand; named views start anew.
  }
}

function Views({ view }: { readonly view: View }) {
  const [isOpen, setOpen] = useState(false);
  const [kept, setKept] = useKept("views");
  const [name, setName] = useState("");
  const own = namedViews(kept);
  const openView = (url: string): void => {
    setOpen(false);
    const query = new URLSearchParams(url.split("?")[1] ?? "");
    go(viewUrl(readView(query)));
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
              aria-label={`Forget the view ${named.name}`}
              onClick={() => setKept(JSON.stringify(own.filter((other) => other !== named)))}
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
            setKept(JSON.stringify([...others, added]));
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
        <p class="menu-note">Kept in this browser. To share a view, send its URL.</p>
      </div>
    </Popover>
  );
}
