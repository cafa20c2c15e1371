/** Filters as chips, and the form that adds or changes a filter. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { getFacets } from "../api/routes";
import { clusterName, useClusters, type Clusters } from "../clusters/context";
import { fieldNamed, FIELDS, OPERATORS, operatorsOf } from "../model/fields";
import { MAX_FILTERS, problemOf, without, type Filter } from "../model/filter";
import { PHASES } from "../model/phases";
import type { View } from "../model/view";
import { Popover } from "../components/popover";

interface FiltersProps {
  readonly view: View;
  /** The field of the filter that is being added; empty = to be chosen, undefined while the form is closed. */
  readonly newField: string | undefined;
  readonly setNewField: (field: string | undefined) => void;
  readonly onFilters: (filters: readonly Filter[]) => void;
}

export function FilterChips({ view, newField, setNewField, onFilters }: FiltersProps) {
  const [openAt, setOpenAt] = useState<number | undefined>(undefined);
  const { filters } = view;
  const isFull = filters.length >= MAX_FILTERS;
  return (
    <div class="chips">
      {filters.map((filter, index) => (
        <Chip
          key={`${filter.field}${filter.operator}${filter.value}`}
          view={view}
          filter={filter}
          isOpen={openAt === index}
          setOpen={(isOpen) => setOpenAt(isOpen ? index : undefined)}
          onChange={(changed) => {
            setOpenAt(undefined);
            onFilters(filters.map((old, at) => (at === index ? changed : old)));
          }}
          onRemove={() => onFilters(without(filters, filter))}
        />
      ))}
      <Popover
        label="Add a filter"
        button="+ filter"
        title={isFull ? `At most ${MAX_FILTERS} filters` : undefined}
        isOpen={newField !== undefined && !isFull}
        setOpen={(isOpen) => setNewField(isOpen ? "" : undefined)}
      >
        <FilterForm
          key={newField}
          view={view}
          field={newField}
          onDone={(filter) => {
            setNewField(undefined);
            onFilters([...without(filters, filter), filter]);
          }}
        />
      </Popover>
      {filters.length > 1 && (
        <button type="button" class="button is-quiet" onClick={() => onFilters([])}>
          clear all
        </button>
      )}
    </div>
  );
}

interface ChipProps {
  readonly view: View;
  readonly filter: Filter;
  readonly isOpen: boolean;
  readonly setOpen: (isOpen: boolean) => void;
  readonly onChange: (filter: Filter) => void;
  readonly onRemove: () => void;
}

function Chip({ view, filter, isOpen, setOpen, onChange, onRemove }: ChipProps) {
  const clusters = useClusters();
  const text = filterText(filter, clusters);
  return (
    <span class="chip">
      <Popover
        label={`Change the filter: ${text}`}
        buttonClass="chip-words"
        button={text}
        isOpen={isOpen}
        setOpen={setOpen}
      >
        <FilterForm view={view} filter={filter} onDone={onChange} />
      </Popover>
      <button type="button" class="chip-remove" aria-label={`Remove the filter: ${text}`} onClick={onRemove}>
        ×
      </button>
    </span>
  );
}

export function filterText(filter: Filter, clusters: Clusters): string {
  const field = fieldNamed(filter.field);
  const value = filter.field === "clusterId" ? clusterName(clusters, filter.value) : filter.value;
  return `${field?.label ?? filter.field} ${OPERATORS[filter.operator] ?? filter.operator} ${value}`;
}

/** Fields whose values the server counts at little cost, whatever else is asked for. */
export const COUNTED_FIELDS = ["phase", "type", "category", "workloadClass", "projectName", "departmentName"];
/** Those with few values: what there is, is suggested. */
const SUGGESTED_FIELDS = [
  ...COUNTED_FIELDS,
  "submittedBy",
  "priorityClassName",
  "priority",
  "distributedFramework",
  "nodepool",
  "aiApplicationName",
  "image",
  "node",
  "gpuModel",
  "label",
];

interface FilterFormProps {
  readonly view: View;
  readonly filter?: Filter;
  readonly field?: string | undefined;
  readonly onDone: (filter: Filter) => void;
}

function FilterForm({ view, filter, field: wanted, onDone }: FilterFormProps) {
  const [draft, setDraft] = useState<Filter>(
    filter ?? { field: wanted || "projectName", operator: defaultOperator(wanted || undefined), value: "" },
  );
  const [isSubmitted, setSubmitted] = useState(false);
  const field = fieldNamed(draft.field)!;
  const operators = operatorsOf(field);
  const problem = problemOf(draft);
  return (
    <form
      class="filter-form"
      onSubmit={(event) => {
        event.preventDefault();
        if (problem === undefined) onDone(withInstant(draft));
        else setSubmitted(true);
      }}
    >
      <label>
        Field
        <select
          data-autofocus={wanted === "" ? true : undefined}
          value={draft.field}
          onChange={(event) => {
            const next = fieldNamed(event.currentTarget.value)!;
            setDraft({ field: next.name, operator: defaultOperator(next.name), value: "" });
          }}
        >
          {FIELDS.map(({ name, label }) => (
            <option key={name} value={name}>
              {label}
            </option>
          ))}
        </select>
      </label>
      <div class="operators" role="radiogroup" aria-label="Operator" onKeyDown={moveOperator}>
        {operators.map((operator) => (
          <button
            key={operator}
            type="button"
            role="radio"
            class="operator"
            aria-checked={draft.operator === operator}
            tabIndex={draft.operator === operator ? 0 : -1}
            title={`${field.name}${operator}…`}
            onClick={() => setDraft({ ...draft, operator })}
          >
            {OPERATORS[operator]}
          </button>
        ))}
      </div>
      <Value view={view} draft={draft} onValue={(value) => setDraft({ ...draft, value })} />
      {isSubmitted && problem !== undefined && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
      <button type="submit" class="button is-primary">
        Apply
      </button>
    </form>
  );
}

const STEPS: Readonly<Record<string, number>> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/** Arrows choose the next or previous operator, as in every group of radio buttons. */
function moveOperator(event: JSX.TargetedKeyboardEvent<HTMLElement>): void {
  const step = STEPS[event.key];
  const radios = [...event.currentTarget.querySelectorAll<HTMLElement>("[role=radio]")];
  const at = radios.findIndex((radio) => radio === event.target);
  if (step === undefined || at < 0) return;
  event.preventDefault();
  event.stopPropagation();
  const next = radios[(at + step + radios.length) % radios.length]!;
  next.click();
  next.focus();
}

/** Fields that people remember a part of: a name without its number, an owner without the domain. */
const SEARCHED = ["name", "submittedBy", "image", "gpuModel"];

function defaultOperator(name = "projectName"): string {
  const kind = fieldNamed(name)?.kind;
  if (kind === "number" || kind === "date") return ">=";
  return SEARCHED.includes(name) ? "=@" : "==";
}

/** A date and time without a zone is local time; the API needs the instant. */
function withInstant(filter: Filter): Filter {
  if (fieldNamed(filter.field)?.kind !== "date") return filter;
  return { ...filter, value: new Date(filter.value).toISOString().replace(".000Z", "Z") };
}

function Value(props: {
  readonly view: View;
  readonly draft: Filter;
  readonly onValue: (value: string) => void;
}) {
  const { draft, view, onValue } = props;
  const clusters = useClusters();
  const [suggestions, setSuggestions] = useState<readonly string[]>([]);
  useEffect(() => {
    setSuggestions(draft.field === "phase" ? PHASES : []);
    if (!SUGGESTED_FIELDS.includes(draft.field)) return undefined;
    const stop = new AbortController();
    getFacets({ ...view, filters: [], search: "" }, [draft.field], stop.signal).then(
      ({ body }) => setSuggestions((body.facets[0]?.values ?? []).map(({ value }) => value).filter(Boolean)),
      () => undefined, // Suggestions are a convenience: any value can still be typed.
    );
    return () => stop.abort();
  }, [draft.field]);

  if (draft.field === "clusterId" && ["==", "!="].includes(draft.operator))
    return (
      <label>
        Value
        <select
          data-autofocus
          value={draft.value}
          onChange={(event) => onValue(event.currentTarget.value)}
        >
          <option value="">choose…</option>
          {(clusters.data ?? []).map(({ id, name }) => (
            <option key={id} value={id}>
              {name}
            </option>
          ))}
        </select>
      </label>
    );
  const kind = fieldNamed(draft.field)?.kind;
  return (
    <label>
      Value
      <input
        data-autofocus
        type={kind === "date" ? "datetime-local" : "text"}
        inputMode={kind === "number" ? "decimal" : undefined}
        list="filter-suggestions"
        value={kind === "date" ? localInput(draft.value) : draft.value}
        autocomplete="off"
        onInput={(event) => onValue(event.currentTarget.value)}
      />
      <datalist id="filter-suggestions">
        {suggestions.map((value) => (
          <option key={value} value={value} />
        ))}
      </datalist>
    </label>
  );
}

/** What the browser's field for date and time wants: local, without a zone. */
function localInput(value: string): string {
  const at = new Date(value);
  if (value === "" || Number.isNaN(at.getTime())) return value;
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
