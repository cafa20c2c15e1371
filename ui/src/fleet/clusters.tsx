/** The state of each cluster: its last contact and its contact gaps. */

import { serverNow } from "../api/server_clock";
import type { Cluster } from "../api/shapes";
import { count, decimal, plural } from "../model/format";
import { listUrl } from "../model/view";
import { Age } from "../components/instant";
import { StateMark } from "../components/cluster_state";
import { Link } from "../router";
import { capacityOf } from "./bar_rows";

const DAY_MS = 86_400_000;

export function ClusterHealth({ clusters }: { readonly clusters: readonly Cluster[] }) {
  return (
    <div class="scroll-x">
      <table class="small-table wide" aria-label="Clusters">
        <thead>
          <tr>
            <th scope="col">Cluster</th>
            <th scope="col">Last contact</th>
            <th scope="col">Contact gaps in 24 h</th>
            <th scope="col" class="is-number">Workloads</th>
            <th scope="col" class="is-number">GPUs</th>
          </tr>
        </thead>
        <tbody>
          {clusters.map((cluster) => (
            <tr key={cluster.id}>
              <th scope="row">
                <StateMark state={cluster.state} /> {cluster.name}
              </th>
              <td>{cluster.lastContactAt === undefined ? "never" : <><Age since={cluster.lastContactAt} /> ago</>}</td>
              <td>{gaps(cluster)}</td>
              <td class="is-number">
                <Link to={listUrl([["clusterId", "==", cluster.id]])}>{count(cluster.workloads)}</Link>
              </td>
              <td class="is-number">{capacityOf(cluster) > 0 ? decimal(capacityOf(cluster)) : "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function gaps(cluster: Cluster): string {
  const since = serverNow() - DAY_MS;
  const recent = (cluster.gaps ?? []).filter(({ from, to }) => Date.parse(to ?? from) >= since);
  return recent.length === 0 ? "none" : plural(recent.length, "gap", "gaps");
}
