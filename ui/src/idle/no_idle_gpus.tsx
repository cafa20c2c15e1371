/** What it means that no idle GPUs are known: none are idle, none are allocated, or nothing measures them. */

import type { FleetMoment } from "../api/shapes";
import { idleAfter, useClusters } from "../clusters/context";
import { EmptyState } from "../components/placeholders";
import { decimal, plural } from "../model/format";
import { NotMeasured } from "./not_measured";

/** Below this, sums of fractions of GPUs differ by rounding only. */
const ROUNDING_GPUS = 0.005;

interface NoIdleGpusProps {
  readonly gpus: FleetMoment["gpus"];
  /** With the reasons for each cluster. */
  readonly isPage?: boolean;
}

export function NoIdleGpus({ gpus, isPage = false }: NoIdleGpusProps) {
  const clusters = useClusters().data ?? [];
  const { title, text } = wordsFor(gpus);
  const isFullyMeasured = gpus.idle !== null && gpus.allocated - gpus.measured <= ROUNDING_GPUS;
  if (!isPage)
    return (
      <p class="muted">
        {title}. {text}
      </p>
    );
  return (
    <EmptyState title={title}>
      <p>{text}</p>
      {gpus.idle !== null && <Definition />}
      {!isFullyMeasured && <NotMeasured clusters={clusters} />}
    </EmptyState>
  );
}

function wordsFor(gpus: FleetMoment["gpus"]): { readonly title: string; readonly text: string } {
  const allocated = plural(gpus.allocated, "GPU is", "GPUs are");
  if (gpus.allocated <= ROUNDING_GPUS)
    return { title: "No GPUs are allocated", text: "No workload visible to you has been given a GPU." };
  if (gpus.idle === null)
    return { title: "Idle GPUs are not known", text: `${allocated} allocated, but none of them is measured.` };
  const unmeasured = gpus.allocated - gpus.measured;
  if (unmeasured > ROUNDING_GPUS)
    return {
      title: `No idle GPUs among the ${decimal(gpus.measured)} measured`,
      text: `${plural(unmeasured, "other allocated GPU is", "other allocated GPUs are")} not measured.`,
    };
  return { title: "No idle GPUs", text: `${allocated} allocated, and all of them have been in use recently.` };
}

export function Definition() {
  const after = idleAfter(useClusters().data ?? []);
  return (
    <p class="muted">
      A GPU is idle if it is allocated and its utilization has been 0 for more than {after ?? "the time set for its agent"}.
    </p>
  );
}

/** How many allocated GPUs the numbers leave out, and why. */
export function Unmeasured({ number }: { readonly number: number }) {
  const clusters = useClusters().data ?? [];
  if (number <= ROUNDING_GPUS) return null;
  return (
    <details class="muted">
      <summary>{plural(number, "allocated GPU is", "allocated GPUs are")} not measured and not counted here.</summary>
      <NotMeasured clusters={clusters} />
    </details>
  );
}
