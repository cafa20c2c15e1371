/** Which page is shown, and whether someone is signed in. */

import { Component, type ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, whenSignedOut } from "./api/http";
import { whoAmI } from "./api/routes";
import type { Me } from "./api/shapes";
import { ClustersContext, useClustersLive } from "./clusters/context";
import { ClustersPage } from "./clusters/page";
import { WorkloadPage } from "./detail/page";
import { FleetPage } from "./fleet/page";
import { Frame } from "./frame";
import { IdlePage } from "./idle/page";
import { LoginPage } from "./login/page";
import { safePath } from "./model/links";
import { Empty, Failure, Skeleton } from "./parts/states";
import { currentUrl, go, Link, usePlace, type Place } from "./router";
import { WorkloadsPage } from "./workloads/page";
import { forgetRows } from "./workloads/use_rows";

type Session =
  | { readonly kind: "asking" }
  | { readonly kind: "failed"; readonly error: Error }
  | { readonly kind: "out"; readonly wasIn: boolean }
  | { readonly kind: "in"; readonly me: Me };

export function App() {
  const place = usePlace();
  const [session, setSession] = useState<Session>({ kind: "asking" });
  const [attempt, setAttempt] = useState(0);
  const clusters = useClustersLive(session.kind === "in");

  useEffect(() => {
    whenSignedOut(() => setSession((old) => ({ kind: "out", wasIn: old.kind === "in" })));
    whoAmI().then(
      (me) => setSession({ kind: "in", me }),
      (error: unknown) => {
        if (error instanceof ApiError && error.status === 401) return;
        setSession({ kind: "failed", error: error instanceof Error ? error : new Error(String(error)) });
      },
    );
  }, [attempt]);

  useEffect(() => {
    if (session.kind === "out" && place.path !== "/login") {
      forgetRows();
      go(`/login?next=${encodeURIComponent(currentUrl())}`, { replace: true });
    }
    if (session.kind === "in" && place.path === "/login") go(safePath(place.query.get("next")), { replace: true });
  }, [session.kind, place.path]);

  if (session.kind === "asking") return <Skeleton rows={12} />;
  if (session.kind === "failed")
    return <Failure error={session.error} retry={() => (setSession({ kind: "asking" }), setAttempt(attempt + 1))} />;
  if (session.kind === "out")
    return <LoginPage wasSignedIn={session.wasIn} onSignedIn={(me) => setSession({ kind: "in", me })} />;
  return (
    <ClustersContext.Provider value={clusters}>
      <Frame
        place={place}
        me={session.me}
        onSignedOut={() => {
          forgetRows();
          go("/login", { replace: true });
          setSession({ kind: "out", wasIn: false });
        }}
      >
        <Guard key={place.path}>
          <Page place={place} />
        </Guard>
      </Frame>
    </ClustersContext.Provider>
  );
}

const TITLES: Readonly<Record<string, string>> = {
  "/": "Workloads",
  "/fleet": "Fleet",
  "/idle": "Idle GPUs",
  "/clusters": "Clusters",
};

function Page({ place }: { readonly place: Place }) {
  const isFirst = useRef(true);
  useEffect(() => {
    document.title = `${TITLES[place.path] ?? "Workload"} · Watchbill`;
    if (!isFirst.current) document.getElementById("content")?.focus({ preventScroll: true });
    isFirst.current = false;
  }, [place.path]);
  const workload = /^\/workloads\/([^/]+)$/u.exec(place.path);
  if (workload !== null) return <WorkloadPage id={decoded(workload[1]!)} />;
  if (place.path === "/" || place.path === "/workloads") return <WorkloadsPage place={place} />;
  if (place.path === "/fleet") return <FleetPage />;
  if (place.path === "/idle") return <IdlePage />;
  if (place.path === "/clusters") return <ClustersPage />;
  if (place.path === "/login") return null;
  return (
    <Empty title="There is no such page">
      <Link to="/">To the workloads</Link>
    </Empty>
  );
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // A broken escape names no workload; the server's 404 says so.
  }
}

/** A fault in one page leaves the frame standing and says so. */
class Guard extends Component<{ readonly children: ComponentChildren }, { readonly fault?: Error }> {
  static override getDerivedStateFromError(fault: Error): { fault: Error } {
    return { fault };
  }

  override render() {
    const { fault } = this.state;
    if (fault === undefined) return this.props.children;
    return (
      <Empty title="This page has a fault">
        <p>{fault.message}</p>
        <button type="button" class="button" onClick={() => window.location.reload()}>
          Load it anew
        </button>
      </Empty>
    );
  }
}
