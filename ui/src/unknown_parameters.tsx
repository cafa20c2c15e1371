/** Shown in place of a page while its address says what the page does not know: everything would pass for what was asked for. The API and the command line refuse it, too. */

import { EmptyState } from "./components/placeholders";
import { DETAIL_PARAMETERS } from "./model/detail_view";
import { fieldNamed } from "./model/fields";
import { nearest } from "./model/suggest";
import { VIEW_PARAMETERS } from "./model/view";
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

function known(path: string): readonly string[] | undefined {
  if (path === "/workloads") return PARAMETERS["/"];
  return path.startsWith("/workloads/") ? DETAIL_PARAMETERS : PARAMETERS[path];
}

export function unknownParameters({ path, query }: Route): readonly string[] {
  const names = known(path);
  return names === undefined ? [] : [...new Set(query.keys())].filter((name) => !names.includes(name));
}

export function UnknownParameters({ route }: { readonly route: Route }) {
  const names = known(route.path) ?? [];
  return (
    <EmptyState title="The address says what this page does not know" isPage>
      {unknownParameters(route).map((name) => {
        const meant = nearest(name, names);
        const filter = meantFilter(route, name);
        return (
          <div key={name} role="alert">
            <p>There is no parameter “{name}”.</p>
            {meant !== undefined && !route.query.has(meant) && (
              <p>
                Did you mean <Link to={changed(route, name, meant)}>{`${meant}=${route.query.get(name)}`}</Link>?
              </p>
            )}
            {filter !== undefined && (
              <p>
                A field is filtered by <Link to={filtered(route, name, filter)}>{`filterBy=${filter}`}</Link>.
              </p>
            )}
            <p>
              <Link to={changed(route, name, undefined)}>Remove {name}</Link>
              {names.length > 0 && `. There are ${names.join(", ")}.`}
            </p>
          </div>
        );
      })}
    </EmptyState>
  );
}

/** A workload's field that stands in the address of the list by itself. */
export function meantFilter({ path, query }: Route, name: string): string | undefined {
  const isList = path === "/" || path === "/workloads";
  return isList && fieldNamed(name) !== undefined ? `${name}==${query.get(name)}` : undefined;
}

function filtered(route: Route, name: string, filter: string): string {
  const query = new URLSearchParams(route.query);
  query.append("filterBy", filter);
  return changed({ ...route, query }, name, undefined);
}

function changed({ path, query }: Route, name: string, meant: string | undefined): string {
  const rest = new URLSearchParams(query);
  if (meant !== undefined) rest.set(meant, query.get(name) ?? "");
  rest.delete(name);
  const text = rest.toString();
  return text === "" ? path : `${path}?${text}`;
}
