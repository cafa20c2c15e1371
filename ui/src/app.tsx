/** The application: the session, and the page for the current URL. */

import { Component, type ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, setSessionEndListener } from "./api/http";
import { getMe } from "./api/routes";
import type { Me } from "./api/shapes";
import { AdminPage } from "./admin/page";
import { ClustersContext, useClustersLive } from "./clusters/context";
import { ClustersPage } from "./clusters/page";
import { WorkloadPage } from "./detail/page";
import { FleetPage } from "./fleet/page";
import { Frame } from "./frame";
import { IdlePage } from "./idle/page";
import { LoginPage } from "./login/page";
import { useTitle } from "./hooks/title";
import { safePath } from "./model/links";
import { EmptyState, ErrorState, Skeleton } from "./components/placeholders";
import { currentUrl, navigate, Link, useRoute, type Route } from "./router";
import { MeContext } from "./session";
import { UnknownParameters, unknownParameters } from "./unknown_parameters";
import { NodesPage } from "./nodes/page";
import { ProjectsPage } from "./projects/page";
import { UsagePage } from "./usage/page";
import { usageTitle } from "./usage/periods";
import { WorkloadsPage } from "./workloads/page";
import { forgetRows } from "./workloads/use_live_rows";

type Session =
  | { readonly kind: "loading" }
  | { readonly kind: "failed"; readonly error: Error }
  | { readonly kind: "logged out"; readonly wasLoggedIn: boolean }
  | { readonly kind: "logged in"; readonly me: Me };

export function App() {
  const route = useRoute();
  const [session, setSession] = useState<Session>({ kind: "loading" });
  const [attempt, setAttempt] = useState(0);
  const clusters = useClustersLive(session.kind === "logged in");
  useContentFocus(route.path);

  useEffect(() => {
    setSessionEndListener(() => setSession((old) => ({ kind: "logged out", wasLoggedIn: old.kind === "logged in" })));
    getMe().then(
      (me) => setSession({ kind: "logged in", me }),
      (error: unknown) => {
        if (error instanceof ApiError && error.status === 401) return;
        setSession({ kind: "failed", error: error instanceof Error ? error : new Error(String(error)) });
      },
    );
  }, [attempt]);

  useEffect(() => {
    if (session.kind === "logged out" && route.path !== "/login") {
      forgetRows();
      navigate(`/login?next=${encodeURIComponent(currentUrl())}`, { replace: true });
    }
    if (session.kind === "logged in" && route.path === "/login") navigate(safePath(route.query.get("next")), { replace: true });
  }, [session.kind, route.path]);

  if (session.kind === "loading") return <Skeleton rows={12} />;
  if (session.kind === "failed")
    return <ErrorState error={session.error} retry={() => (setSession({ kind: "loading" }), setAttempt(attempt + 1))} />;
  if (session.kind === "logged out")
    return <LoginPage wasLoggedIn={session.wasLoggedIn} onLoggedIn={(me) => setSession({ kind: "logged in", me })} />;
  return (
    <MeContext.Provider value={session.me}>
      <ClustersContext.Provider value={clusters}>
        <Frame
          route={route}
          me={session.me}
          onLoggedOut={() => {
            forgetRows();
            navigate("/login", { replace: true });
            setSession({ kind: "logged out", wasLoggedIn: false });
          }}
        >
          <ErrorBoundary key={route.path}>
            <Page route={route} />
          </ErrorBoundary>
        </Frame>
      </ClustersContext.Provider>
    </MeContext.Provider>
  );
}

/** Another page is where the keyboard goes on, and a screen reader; what had the focus may be gone with the last one. */
function useContentFocus(path: string): void {
  const last = useRef(path);
  useEffect(() => {
    const content = document.getElementById("content");
    if (last.current !== path && !content?.contains(document.activeElement)) content?.focus({ preventScroll: true });
    last.current = path;
  }, [path]);
}

const TITLES: Readonly<Record<string, string>> = {
  "/": "Workloads",
  "/fleet": "Fleet",
  "/idle": "Idle GPUs",
  "/nodes": "Nodes",
  "/projects": "Projects",
  "/clusters": "Clusters",
  "/admin": "Administration",
};

const NOT_FOUND = "Page not found";

function titleOf({ path, query }: Route): string {
  if (path === "/usage") return usageTitle(query);
  return TITLES[path] ?? (/^\/workloads(\/[^/]+)?$/u.test(path) ? "Workload" : NOT_FOUND);
}

function Page({ route }: { readonly route: Route }) {
  useTitle(titleOf(route));
  if (unknownParameters(route).length > 0) return <UnknownParameters route={route} />;
  const workload = /^\/workloads\/([^/]+)$/u.exec(route.path);
  if (workload !== null) return <WorkloadPage id={decoded(workload[1]!)} />;
  if (route.path === "/" || route.path === "/workloads") return <WorkloadsPage route={route} />;
  if (route.path === "/fleet") return <FleetPage />;
  if (route.path === "/idle") return <IdlePage />;
  if (route.path === "/usage") return <UsagePage />;
  if (route.path === "/nodes") return <NodesPage query={route.query} />;
  if (route.path === "/projects") return <ProjectsPage query={route.query} />;
  if (route.path === "/clusters") return <ClustersPage />;
  if (route.path === "/admin") return <AdminPage />;
  if (route.path === "/login") return null;
  return (
    <EmptyState title={NOT_FOUND} isPage>
      <p>
        Watchbill has no page at <code>{route.path}</code>.
      </p>
      <Link class="button" to="/">
        Go to the workloads
      </Link>
    </EmptyState>
  );
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // A broken escape names no workload; the server's 404 says so.
  }
}

/** Contains an error of one page: the frame stays, and the error is shown. */
class ErrorBoundary extends Component<{ readonly children: ComponentChildren }, { readonly error?: Error }> {
  static override getDerivedStateFromError(error: Error): { error: Error } {
    return { error };
  }

  override render() {
    const { error } = this.state;
    if (error === undefined) return this.props.children;
    return (
      <EmptyState title="This page crashed" isPage>
        <p>{error.message}</p>
        <button type="button" class="button" onClick={() => window.location.reload()}>
          Reload
        </button>
      </EmptyState>
    );
  }
}
