/** Why idle GPUs are not known, cluster by cluster. */

import type { Cluster } from "../api/shapes";
import { FindingText } from "../components/finding";
import { gpuMeasurement } from "../model/cluster_health";
import { useMe } from "../session";

export function NotMeasured({ clusters }: { readonly clusters: readonly Cluster[] }) {
  const me = useMe();
  const unmeasured = clusters
    .map((cluster) => ({ cluster, measurement: gpuMeasurement(cluster, me) }))
    .filter(({ measurement }) => !measurement.isMeasured);
  if (unmeasured.length === 0)
    return <p class="muted">Every cluster measures GPU use: their pods have just started, or their devices report none.</p>;
  return (
    <ul class="plain not-measured">
      {unmeasured.map(({ cluster, measurement }) => (
        <li key={cluster.id}>
          <strong>{cluster.name}</strong>: <FindingText finding={measurement} />
        </li>
      ))}
    </ul>
  );
}
