/** Shown in place of a report while its address says what there is not: an address is refused with words, as the API and the command line do. */

import { EmptyState } from "../components/placeholders";
import { nearest } from "../model/suggest";
import { Link, useRoute } from "../router";
import { narrowed, PARAMETERS } from "./periods";

export function usageUrl(query: URLSearchParams, name: string, word: string | undefined): string {
  const changed = new URLSearchParams(query);
  if (word === undefined) changed.delete(name);
  else changed.set(name, word);
  return `/usage?${changed}`;
}

interface UnknownParameterProps {
  readonly name: string;
  readonly query: URLSearchParams;
}

/** Figures of everything would pass for those of what was asked for. */
export function UnknownParameter({ name, query }: UnknownParameterProps) {
  const values = query.getAll(name);
  const meant = PARAMETERS.includes(name) ? undefined : nearest(name, PARAMETERS);
  return (
    <EmptyState title={values.length > 1 ? `The address says “${name}” ${values.length} times` : `There is no parameter “${name}”`}>
      {meant !== undefined && !query.has(meant) && (
        <p>
          Did you mean <Link to={renamed(query, name, meant)}>{`${meant}=${values[0]}`}</Link>?
        </p>
      )}
      {values.length > 1 && PARAMETERS.includes(name) && (
        <p>
          Choose{" "}
          {values.map((value, index) => (
            <>
              {index > 0 && " or "}
              <Link to={usageUrl(query, name, value)}>{value === "" ? narrowed([name, value]) : value}</Link>
            </>
          ))}
          .
        </p>
      )}
      <p>
        <Link to={usageUrl(query, name, undefined)}>Remove {name}</Link>. There are {PARAMETERS.join(", ")}.
      </p>
    </EmptyState>
  );
}

function renamed(query: URLSearchParams, name: string, meant: string): string {
  const changed = new URLSearchParams(query);
  changed.set(meant, query.get(name)!);
  changed.delete(name);
  return `/usage?${changed}`;
}

interface UnknownChoiceProps {
  readonly what: string;
  readonly word: string;
  /** The parameter of the address. */
  readonly name: string;
  readonly options: readonly { readonly word: string }[];
}

/** An address is refused with words, as the API and the command line do. */
export function UnknownChoice({ what, word, name, options }: UnknownChoiceProps) {
  const { query } = useRoute();
  const meant = nearest(word, options.map((option) => option.word));
  const to = (chosen: string): string => usageUrl(query, name, chosen);
  return (
    <EmptyState title={`There is no ${what} “${word}”`}>
      {meant !== undefined && (
        <p>
          Did you mean <Link to={to(meant)}>{meant}</Link>?
        </p>
      )}
      <p>
        There are{" "}
        {options.map((option, index) => (
          <>
            {index > 0 && ", "}
            <Link to={to(option.word)}>{option.word}</Link>
          </>
        ))}
        .
      </p>
    </EmptyState>
  );
}
