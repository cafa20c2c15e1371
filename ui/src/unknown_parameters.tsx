/** Shown in place of a page while its address says what the page does not know: everything would pass for what was asked for. The API and the command line refuse it, too. */

import { EmptyState } from "./components/placeholders";
import { GROUPINGS } from "./fleet/groupings";
import { DETAIL_PARAMETERS, RANGES, TABS } from "./model/detail_view";
import { fieldNamed } from "./model/fields";
import { MAX_FILTERS } from "./model/filter";
import { nearest } from "./model/suggest";
import { VIEW_PARAMETERS } from "./model/view";
import { SORT_FIELDS } from "./projects/tree";
import { Link, type Route } from "./router";

/** By path; *Usage* looks after its own, and other paths are none. */
const PARAMETERS: Readonly<Record<string, readonly string[]>> = {
  "/": [...VIEW_PARAMETERS, ...DETAIL_PARAMETERS],
  "/fleet": ["by"],
  "/idle": [],
  "/nodes": ["node"],
  "/projects": ["search", "sortBy", "sortOrder"],
  "/clusters": [],
  "/admin": ["tab", "subject", "operation"],
};

const ORDERS = ["asc", "desc"];
const OF_A_WORKLOAD = { tab: TABS.map((tab) => tab.toLowerCase()), range: RANGES.map(({ word }) => word) };
/** By path and parameter, where only some words mean anything. The server looks after fields, parts of the page after columns and tabs. */
const WORDS: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  "/": { deleted: ["true", "false"], all: ["true", "false"], sortOrder: ORDERS, density: ["compact"], ...OF_A_WORKLOAD },
  "/workloads/": OF_A_WORKLOAD,
  "/fleet": { by: GROUPINGS.map(({ word }) => word) },
  "/projects": { sortBy: SORT_FIELDS, sortOrder: ORDERS },
};
/** What an address may say several times. */
const LISTS = ["filterBy"];

function pageOf(path: string): string {
  if (path === "/workloads") return "/";
  return path.startsWith("/workloads/") ? "/workloads/" : path;
}

function known(path: string): readonly string[] | undefined {
  const page = pageOf(path);
  return page === "/workloads/" ? DETAIL_PARAMETERS : PARAMETERS[page];
}

function words({ path }: Route, name: string): readonly string[] | undefined {
  return WORDS[pageOf(path)]?.[name];
}

/** Parameters of an address that the page does not know, or whose value it does not, or that stand there twice. */
export function unknownParameters(route: Route): readonly string[] {
  const names = known(route.path);
  if (names === undefined) return [];
  return [...new Set(route.query.keys())].filter((name) => {
    if (!names.includes(name)) return true;
    const values = route.query.getAll(name);
    return (values.length > 1 && !LISTS.includes(name)) || words(route, name)?.includes(values[0]!) === false;
  });
}

/** Each has links that name all others: thousands in one address would keep the browser for minutes. */
const MOST_SHOWN = 10;

export function UnknownParameters({ route }: { readonly route: Route }) {
  const unknown = unknownParameters(route);
  return (
    <EmptyState title="The address says what this page does not know" isPage>
      {unknown.slice(0, MOST_SHOWN).map((name) => (
        <div key={name} role="alert">
          {known(route.path)?.includes(name) === true ? (
            <UnknownValue route={route} name={name} />
          ) : (
            <UnknownParameter route={route} name={name} />
          )}
        </div>
      ))}
      {unknown.length > MOST_SHOWN && <p>And {unknown.length - MOST_SHOWN} more.</p>}
    </EmptyState>
  );
}

interface PartProps {
  readonly route: Route;
  readonly name: string;
}

function UnknownParameter({ route, name }: PartProps) {
  const names = known(route.path) ?? [];
  const meant = nearest(name, names);
  const filters = meantFilters(route, name);
  return (
    <>
      <p>There is no parameter “{name}”.</p>
      {meant !== undefined && !route.query.has(meant) && (
        <p>
          Did you mean <Link to={changed(route, name, meant)}>{`${meant}=${route.query.get(name)}`}</Link>?
        </p>
      )}
      {filters.length > 0 && (
        <p>
          A field is filtered by{" "}
          <Link to={filtered(route, name, filters)}>{filters.map((filter) => `filterBy=${filter}`).join("&")}</Link>.
        </p>
      )}
      <p>
        <Link to={changed(route, name, undefined)}>Remove {name}</Link>
        {names.length > 0 && `. There are ${names.join(", ")}.`}
      </p>
    </>
  );
}

/** Of a parameter that there is: a value that means nothing, or several where one counts. */
function UnknownValue({ route, name }: PartProps) {
  const values = route.query.getAll(name);
  const choices = (words(route, name) ?? [...new Set(values)]).slice(0, MOST_SHOWN);
  return (
    <>
      <p>
        {values.length > 1
          ? `The address says “${name}” ${values.length} times.`
          : `“${name}” cannot be “${values[0]}”.`}
      </p>
      <p>
        Choose{" "}
        {choices.map((choice, index) => (
          <>
            {index > 0 && " or "}
            <Link to={chosen(route, name, choice)}>{`${name}=${choice}`}</Link>
          </>
        ))}
        , or <Link to={changed(route, name, undefined)}>remove {name}</Link>.
      </p>
    </>
  );
}

/** Filters for a workload's field that stands in the address of the list by itself. */
export function meantFilters({ path, query }: Route, name: string): readonly string[] {
  if (pageOf(path) !== "/" || fieldNamed(name) === undefined) return [];
  const values = query.getAll(name);
  return values.length > MAX_FILTERS ? [] : values.flatMap((value) => (value === "" ? [] : [`${name}==${value}`]));
}

function filtered(route: Route, name: string, filters: readonly string[]): string {
  const query = new URLSearchParams(route.query);
  for (const filter of filters) query.append("filterBy", filter);
  return changed({ ...route, query }, name, undefined);
}

function chosen({ path, query }: Route, name: string, value: string): string {
  const rest = new URLSearchParams(query);
  rest.set(name, value);
  return `${path}?${rest}`;
}

function changed({ path, query }: Route, name: string, meant: string | undefined): string {
  const rest = new URLSearchParams(query);
  if (meant !== undefined) rest.set(meant, query.get(name) ?? "");
  rest.delete(name);
  const text = rest.toString();
  return text === "" ? path : `${path}?${text}`;
}
