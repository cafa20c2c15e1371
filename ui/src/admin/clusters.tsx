import { serverUrl } from "../base_path";
import { useClusters } from "../clusters/context";
import { StateMark } from "../components/cluster_state";
import { Command } from "../components/command";
import { count } from "../model/format";
import { CopyCommand, Table } from "./table";

export function Clusters() {
  const rows = (useClusters().data ?? []).map((cluster) => (
    <tr key={cluster.id}>
      <th scope="row">
        <StateMark state={cluster.state} /> {cluster.name}
      </th>
      <td>{cluster.state}</td>
      <td>{count(cluster.workloads)}</td>
      <td>
        <code>{cluster.id}</code>
      </td>
      <td>
        <CopyCommand label="remove" words={["admin", "cluster", "delete", cluster.name]} />{" "}
        <CopyCommand label="accept as rebuilt" words={["admin", "cluster", "repin", cluster.name]} />
      </td>
    </tr>
  ));
  return (
    <section class="block">
      <h2>Clusters</h2>
      <Table label="Clusters" columns={["Cluster", "State", "Workloads", "Id", "Commands"]} empty="No cluster is registered.">
        {rows}
      </Table>
      <h3>Register another one</h3>
      <p class="muted">The first command writes the agent's credential into a file, the second starts the agent.</p>
      <Command text="watchbill admin cluster create NAME --output agent.credential" />
      <Command text={`watchbill agent --server ${serverUrl()} --credential agent.credential --kubeconfig ~/.kube/config`} />
    </section>
  );
}
