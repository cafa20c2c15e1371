/** Which other workloads are drawn into this one's charts: by name or id, in the address. */

import { useState } from "preact/hooks";
import { getWorkload, listWorkloads } from "../api/routes";
import type { Workload } from "../api/shapes";
import { MOST_COMPARED } from "../model/detail_view";
import { readView } from "../model/view";

const SUGGESTED = 20;

interface CompareProps {
  readonly workload: Workload;
  /** Those that are compared with it, as far as they are loaded. */
  readonly others: readonly Workload[];
  readonly ids: readonly string[];
  readonly onIds: (ids: readonly string[]) => void;
}

export function Compare({ workload, others, ids, onIds }: CompareProps) {
  const [name, setName] = useState("");
  const [found, setFound] = useState<readonly Workload[]>([]);
  const [problem, setProblem] = useState<string | undefined>(undefined);
  const suggest = async (text: string): Promise<void> => {
    setName(text);
    setProblem(undefined);
    if (text.trim() === "") return;
    try {
      setFound(await search(text.trim()));
    } catch {
      setFound([]); // Suggestions are a convenience: a name can still be typed.
    }
  };
  const add = async (): Promise<void> => {
    try {
      const match = await lookUp(name.trim());
      if (match === undefined) return setProblem(`No workload is named ${name.trim()}.`);
      if (match.id === workload.id) return setProblem("That is this workload.");
      setName("");
      onIds([...ids.filter((id) => id !== match.id), match.id]);
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <div class="chips compare">
      {ids.map((id) => {
        const shown = others.find((other) => other.id === id)?.name ?? id.slice(0, 8);
        return (
          <span class="chip" key={id}>
            <span class="chip-text">{shown}</span>
            <button
              type="button"
              class="chip-remove"
              aria-label={`Do not compare with ${shown}`}
              onClick={() => onIds(ids.filter((other) => other !== id))}
            >
              ×
            </button>
          </span>
        );
      })}
      {ids.length < MOST_COMPARED && (
        <form
          class="compare-form"
          onSubmit={(event) => {
            event.preventDefault();
            if (name.trim() !== "") void add();
          }}
        >
          <label>
            Compare with{" "}
            <input
              list="compare-names"
              placeholder="name or id"
              value={name}
              autocomplete="off"
              spellcheck={false}
              onInput={(event) => void suggest(event.currentTarget.value)}
            />
          </label>
          <datalist id="compare-names">
            {found.map((other) => (
              <option key={other.id} value={other.name} />
            ))}
          </datalist>
          <button type="submit" class="button">
            Compare
          </button>
        </form>
      )}
      {problem !== undefined && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
    </div>
  );
}

function search(text: string): Promise<readonly Workload[]> {
  const view = { ...readView(new URLSearchParams()), search: text };
  return listWorkloads(view, [], { offset: 0, limit: SUGGESTED });
}

async function lookUp(text: string): Promise<Workload | undefined> {
  if (/^[0-9a-f]{8}-[0-9a-f-]{27}$/u.test(text)) return getWorkload(text);
  const matches = await search(text);
  return matches.find(({ name }) => name === text) ?? (matches.length === 1 ? matches[0] : undefined);
}
