/** The frame around every page: navigation, the search, the state of the clusters, the account. */

import { BASE_PATH } from "./base_path";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { logOut } from "./api/routes";
import type { Me } from "./api/shapes";
import { useClusters } from "./clusters/context";
import { Help } from "./keyboard_help";
import { useKeys } from "./hooks/keyboard";
import { MENU, useMedia } from "./hooks/media";
import { readView, viewUrl } from "./model/view";
import { Logo } from "./components/logo";
import { Popover } from "./components/popover";
import { StateMark } from "./components/cluster_state";
import { navigate, Link, type Route } from "./router";
import { THEMES, useTheme } from "./theme";

const PAGES: readonly (readonly [string, string])[] = [
  ["/", "Workloads"],
  ["/fleet", "Fleet"],
  ["/idle", "Idle GPUs"],
  ["/usage", "Usage"],
  ["/nodes", "Nodes"],
  ["/projects", "Projects"],
  ["/clusters", "Clusters"],
];

/** 1 is the first page. */
const PAGE_KEYS = Object.fromEntries(PAGES.map(([path], index) => [String(index + 1), () => navigate(path)]));

interface FrameProps {
  readonly route: Route;
  readonly me: Me;
  readonly onLoggedOut: () => void;
  readonly children: ComponentChildren;
}

export function Frame({ route, me, onLoggedOut, children }: FrameProps) {
  const [isHelpOpen, setHelpOpen] = useState(false);
  useKeys({ ...PAGE_KEYS, "?": () => setHelpOpen(true) });
  return (
    <>
      <a class="skip" href="#content">
        Skip to the content
      </a>
      <header class="frame">
        <Link class="brand" to="/" title="Watchbill">
          <Logo />
          <span class="brand-name">Watchbill</span>
        </Link>
        <Pages route={route} />
        <Search route={route} />
        <ClusterStatus />
        <Account me={me} onLoggedOut={onLoggedOut} onHelp={() => setHelpOpen(true)} />
      </header>
      <main id="content" tabIndex={-1}>
        {children}
      </main>
      {isHelpOpen && <Help onClose={() => setHelpOpen(false)} />}
    </>
  );
}

/** All pages in one line, or in a menu where the line would not hold them. */
function Pages({ route }: { readonly route: Route }) {
  const isMenu = useMedia(MENU);
  const [isOpen, setOpen] = useState(false);
  const links = (className: string) => (
    <nav aria-label="Pages" onClickCapture={() => setOpen(false)}>
      {PAGES.map(([path, label]) => (
        <Link key={path} to={path} class={className} aria-current={isAt(route.path, path) ? "page" : undefined}>
          {label}
        </Link>
      ))}
    </nav>
  );
  if (!isMenu) return links("nav");
  const current = PAGES.find(([path]) => isAt(route.path, path))?.[1];
  return (
    <Popover
      label={current === undefined ? "Pages" : `Pages, now ${current}`}
      button={<span class="pages-label">{current ?? "Pages"}</span>}
      buttonClass="button pages"
      isOpen={isOpen}
      setOpen={setOpen}
    >
      <div class="menu">{links("menu-item")}</div>
    </Popover>
  );
}

function isAt(path: string, target: string): boolean {
  return target === "/" ? path === "/" || path.startsWith("/workloads") : path === target;
}

/** Typing never waits for the server: the search goes into the URL shortly after the last key. */
function Search({ route }: { readonly route: Route }) {
  const input = useRef<HTMLInputElement>(null);
  const view = readView(route.query);
  const isList = route.path === "/";
  const current = isList ? view.search : "";
  const [text, setText] = useState(current);
  const sent = useRef(current);
  useEffect(() => {
    if (current !== sent.current) setText(current);
    sent.current = current;
  }, [current]);
  const send = (value: string): void => {
    sent.current = value;
    const base = isList ? readView(new URLSearchParams(window.location.search)) : readView(new URLSearchParams());
    navigate(viewUrl({ ...base, search: value }), { replace: isList });
  };
  useEffect(() => {
    if (text === current || (!isList && text === "")) return undefined;
    const timer = setTimeout(() => send(text), 180);
    return () => clearTimeout(timer);
  }, [text]);
  useKeys({
    "/": (event) => {
      event.preventDefault();
      input.current?.focus();
      input.current?.select();
    },
  });
  return (
    <form
      class="search"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        send(text);
        input.current?.blur();
      }}
    >
      <input
        ref={input}
        type="search"
        aria-label="Search workloads"
        placeholder="Search ( / )"
        value={text}
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== "Escape") return;
          event.preventDefault();
          if (text !== "") setText("");
          else input.current?.blur();
        }}
      />
    </form>
  );
}

function ClusterStatus() {
  const { data, error } = useClusters();
  if (data === undefined) return <span class="cluster-status" />;
  const connected = data.filter((cluster) => cluster.state === "connected").length;
  if (data.length === 0) return <span class="cluster-status" />;
  const state = error !== undefined ? "disconnected" : connected === data.length ? "connected" : "degraded";
  const label = `${connected}/${data.length} clusters connected`;
  return (
    <Link class="cluster-status" to="/clusters" title={label} aria-label={label}>
      <StateMark state={state} />
      {connected}/{data.length}
    </Link>
  );
}

function Account(props: { readonly me: Me; readonly onLoggedOut: () => void; readonly onHelp: () => void }) {
  const { me } = props;
  const [isOpen, setOpen] = useState(false);
  const [theme, setTheme] = useTheme();
  const [problem, setProblem] = useState<string | undefined>(undefined);
  const leave = async (): Promise<void> => {
    try {
      await logOut();
      props.onLoggedOut();
    } catch {
      setProblem("Logout failed: the server does not respond.");
    }
  };
  return (
    <Popover
      label="Account"
      button={me.subject.slice(0, 1).toUpperCase() || "?"}
      buttonClass="account"
      align="end"
      isOpen={isOpen}
      setOpen={setOpen}
    >
      <div class="menu">
        <p class="menu-note">
          <strong>{me.subject}</strong>
          <br />
          {me.isAdministrator ? "administrator · " : ""}
          {scopeWords(me)}
        </p>
        <hr />
        <div class="menu-row" role="radiogroup" aria-label="Colours">
          {THEMES.map((name) => (
            <button
              key={name}
              type="button"
              role="radio"
              class="operator"
              aria-checked={theme === name}
              onClick={() => setTheme(name)}
            >
              {name}
            </button>
          ))}
        </div>
        <hr />
        <button
          type="button"
          class="menu-item"
          onClick={() => {
            setOpen(false);
            props.onHelp();
          }}
        >
          Keyboard <kbd>?</kbd>
        </button>
        <Link class="menu-item" to="/admin" onClickCapture={() => setOpen(false)}>
          Administration
        </Link>
        <a class="menu-item" href={`${BASE_PATH}/docs`}>
          API
        </a>
        <button type="button" class="menu-item" data-autofocus onClick={() => void leave()}>
          Log out
        </button>
        {problem !== undefined && (
          <p class="problem" role="alert">
            {problem}
          </p>
        )}
        <p class="menu-note">Watchbill {me.version}</p>
      </div>
    </Popover>
  );
}

function scopeWords(me: Me): string {
  const { scope } = me;
  if (scope.tenant) return "can read everything";
  const parts = [
    [scope.clusterIds.length, "cluster", "clusters"],
    [scope.departmentIds.length, "department", "departments"],
    [scope.projectIds.length, "project", "projects"],
  ] as const;
  const words = parts.filter(([number]) => number > 0).map(([number, singular, many]) => `${number} ${number === 1 ? singular : many}`);
  return words.length === 0 ? "no access yet" : `can read ${words.join(", ")}`;
}
