/** Projects: who may use how many GPUs, who does, whose workloads are pending and who leaves GPUs idle, as a tree. */

import { useEffect, useState } from "preact/hooks";
import { getOrganisation, type Organisation } from "../api/routes";
import { clusterName, useClusters } from "../clusters/context";
import { NoClusters } from "../clusters/no_clusters";
import { StaleClusters } from "../clusters/stale_clusters";
import { EmptyState, ErrorState, Skeleton, StaleBar } from "../components/placeholders";
import { useLiveQuery } from "../hooks/live_query";
import { count, decimal, plural } from "../model/format";
import { Link, navigate } from "../router";
import { ProjectTable } from "./table";
import { isKnown, matching, projectsOf, reasons, SORT_FIELDS, sorted, unitTree, type SortField, type Unit } from "./tree";

const EVERY_MS = 10_000;
const TYPING_MS = 250;

export function ProjectsPage({ query }: { readonly query: URLSearchParams }) {
  const search = query.get("search") ?? "";
  const { data, error, at, refresh } = useLiveQuery(`projects ${search}`, (signal) => getOrganisation(search, signal), EVERY_MS);
  const clusters = useClusters();
  if (clusters.data?.length === 0) return <NoClusters />;
  return (
    <div class="page projects">
      <h1 class="off-screen">Projects</h1>
      <StaleBar error={data === undefined ? undefined : error} at={at} retry={refresh} />
      <StaleClusters />
      <SearchField query={query} search={search} />
      {data !== undefined ? (
        <Tree data={data} query={query} search={search} />
      ) : error === undefined ? (
        <Skeleton rows={8} />
      ) : (
        <ErrorState error={error} retry={refresh} />
      )}
    </div>
  );
}

/** The address with another value of a parameter; "" = without it. */
function projectsUrl(query: URLSearchParams, changes: Readonly<Record<string, string>>): string {
  const changed = new URLSearchParams(query);
  for (const [name, value] of Object.entries(changes)) {
    if (value === "") changed.delete(name);
    else changed.set(name, value);
  }
  const text = changed.toString();
  return text === "" ? "/projects" : `/projects?${text}`;
}

function SearchField({ query, search }: { readonly query: URLSearchParams; readonly search: string }) {
  const [text, setText] = useState(search);
  useEffect(() => setText(search), [search]);
  useEffect(() => {
    if (text === search) return undefined;
    const timer = setTimeout(() => navigate(projectsUrl(query, { search: text }), { replace: true }), TYPING_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return (
    <input
      type="search"
      class="project-search"
      aria-label="Search projects and departments"
      placeholder="Project or department"
      value={text}
      autocomplete="off"
      spellcheck={false}
      onInput={(event) => setText(event.currentTarget.value)}
    />
  );
}

interface TreeProps {
  readonly data: Organisation;
  readonly query: URLSearchParams;
  readonly search: string;
}

function Tree({ data, query, search }: TreeProps) {
  const clusters = useClusters();
  const field = SORT_FIELDS.find((name) => name === query.get("sortBy")) ?? "name";
  const isDescending = query.get("sortOrder") === "desc";
  const whole = unitTree(data.projects, data.departments, (id) => clusterName(clusters, id));
  const units = sorted(search === "" ? whole : matching(whole, search), field, isDescending);
  const onSort = (name: SortField): void => {
    const isDown = name === field ? !isDescending : name !== "name";
    navigate(projectsUrl(query, { sortBy: name, sortOrder: isDown ? "desc" : "asc" }), { replace: true });
  };
  if (units.length === 0) return search === "" ? <NoProjects /> : <NoMatch query={query} search={search} />;
  return (
    <>
      <Lead units={units} />
      <ProjectTable units={units} field={field} isDescending={isDescending} onSort={onSort} />
      {data.hasMore && <p class="muted">The first {count(data.projects.length)} projects by name; the search finds the others.</p>}
      <Reasons units={units} />
    </>
  );
}

function NoProjects() {
  return (
    <EmptyState title="No projects">
      <p>
        A project is a queue of KAI, Kueue or Volcano, or a namespace in which workloads live. None is visible to you: no agent
        reports one, or your access rules cover none.
      </p>
      <p>
        <Link to="/clusters">See whether the agents report</Link>, or ask an administrator to extend your access.
      </p>
    </EmptyState>
  );
}

function NoMatch({ query, search }: { readonly query: URLSearchParams; readonly search: string }) {
  return (
    <EmptyState title={`No project or department matches “${search}”`}>
      <p>
        <Link to={projectsUrl(query, { search: "" })}>Show all projects</Link>
      </p>
    </EmptyState>
  );
}

function Lead({ units }: { readonly units: readonly Unit[] }) {
  const projects = units.flatMap(projectsOf);
  const total = (of: (unit: Unit) => Unit["figures"]["allocated"]): number =>
    projects.map(of).filter(isKnown).reduce((sum, figure) => sum + figure, 0);
  const isPart = projects.some(({ figures }) => !isKnown(figures.allocated));
  const over = projects.filter(({ figures }) => isKnown(figures.over) && figures.over > 0);
  const [allocated, pending, idle] = [total(({ figures }) => figures.allocated), total(({ figures }) => figures.pending), total(({ figures }) => figures.idle)];
  return (
    <p class="lead">
      {isPart && "At least "}
      <strong>{decimal(allocated)}</strong> GPUs allocated to {plural(projects.length, "project", "projects")}
      {idle > 0 && `, ${decimal(idle)} of them idle`}
      {pending > 0 && `; ${decimal(pending)} requested by pending workloads`}
      {over.length > 0 && `; ${plural(over.length, "project is", "projects are")} over quota`}.
    </p>
  );
}

/** Words in place of numbers are not for guessing, nor for a pointer alone. */
function Reasons({ units }: { readonly units: readonly Unit[] }) {
  const missing = reasons(units);
  if (missing.length === 0) return null;
  return (
    <ul class="plain muted project-reasons" aria-label="Why numbers are missing">
      {missing.map(([word, reason]) => (
        <li key={reason}>
          <em>{word}</em>: {reason}
        </li>
      ))}
    </ul>
  );
}
