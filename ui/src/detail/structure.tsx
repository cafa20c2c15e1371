/** The elements of a workload as a tree. Elements are identified by id, never by name. */

import { getElements } from "../api/routes";
import type { Element, Workload } from "../api/shapes";
import { useLiveQuery } from "../hooks/live_query";
import { count } from "../model/format";
import { Age } from "../components/instant";
import { EmptyState, ErrorState, Skeleton } from "../components/placeholders";

const SHOWN_PER_PARENT = 100;

export function Structure({ workload }: { readonly workload: Workload }) {
  const { data, error, refresh } = useLiveQuery(
    `elements ${workload.id}`,
    (signal) => getElements(workload.id, signal),
    15_000,
  );
  if (data === undefined) return error === undefined ? <Skeleton /> : <ErrorState error={error} retry={refresh} />;
  if (data.elements.length === 0)
    return (
      <EmptyState title="No elements">
        <p>This type of workload has no elements between itself and its pods.</p>
      </EmptyState>
    );
  const children = byParent(data.elements);
  return (
    <>
      <p class="muted">
        {count(data.elements.length)} of {count(data.total)} elements
        {data.stored < data.total && "; the others are not stored"}
      </p>
      <Branch parent="" childrenOf={children} />
    </>
  );
}

/** Elements under their parent's id; those whose parent is not listed stand at the top. */
export function byParent(elements: readonly Element[]): ReadonlyMap<string, readonly Element[]> {
  const ids = new Set(elements.map((element) => element.id));
  const tree = new Map<string, Element[]>();
  for (const element of elements) {
    const parent = element.parentId != null && ids.has(element.parentId) ? element.parentId : "";
    tree.set(parent, [...(tree.get(parent) ?? []), element]);
  }
  return tree;
}

interface BranchProps {
  readonly parent: string;
  readonly childrenOf: ReadonlyMap<string, readonly Element[]>;
}

function Branch({ parent, childrenOf }: BranchProps) {
  const elements = childrenOf.get(parent) ?? [];
  const rest = elements.length - SHOWN_PER_PARENT;
  return (
    <ul class="tree">
      {elements.slice(0, SHOWN_PER_PARENT).map((element) => (
        <li key={element.id}>
          <Node element={element} number={childrenOf.get(element.id)?.length ?? 0} />
          {childrenOf.has(element.id) && <Branch parent={element.id} childrenOf={childrenOf} />}
        </li>
      ))}
      {rest > 0 && <li class="muted">and {count(rest)} more</li>}
    </ul>
  );
}

function Node({ element, number }: { readonly element: Element; readonly number: number }) {
  const kind = element.kubernetesRef?.gvk?.kind;
  return (
    <span class="node">
      <span class="node-name">{element.name}</span>
      <span class="muted">
        {kind ?? "group"}
        {number > 0 && ` · ${count(number)}`}
        {element.createdAt !== undefined && (
          <>
            {" · "}
            <Age since={element.createdAt} isShort />
          </>
        )}
      </span>
    </span>
  );
}
