/** What a workload is made of, as a tree by parent. Parts are told apart by id, never by name. */

import { getElements } from "../api/routes";
import type { Element, Workload } from "../api/shapes";
import { useLive } from "../hooks/live";
import { count } from "../model/format";
import { Age } from "../parts/instant";
import { Empty, Failure, Skeleton } from "../parts/states";

const SHOWN_PER_PARENT = 100;

export function Structure({ workload }: { readonly workload: Workload }) {
  const { data, error, refresh } = useLive(
    `elements ${workload.id}`,
    (signal) => getElements(workload.id, signal),
    15_000,
  );
  if (data === undefined) return error === undefined ? <Skeleton /> : <Failure error={error} retry={refresh} />;
  if (data.elements.length === 0)
    return (
      <Empty title="No parts">
        <p>This kind of workload has nothing between itself and its pods.</p>
      </Empty>
    );
  const children = byParent(data.elements);
  return (
    <>
      <p class="muted">
        {count(data.elements.length)} of {count(data.total)} parts
        {data.stored < data.total && " – the structure is larger than what is stored"}
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
