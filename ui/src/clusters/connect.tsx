import { CopyButton } from "../parts/copy";
import { Empty } from "../parts/states";

/** Teaches how a cluster is connected: two commands, one on each side. */
export function ConnectCluster() {
  const create = "watchbill admin cluster create my-cluster > agent.credential";
  const run = `watchbill agent --server ${window.location.origin} --credential agent.credential`;
  return (
    <Empty title="No cluster reports here yet">
      <p>On the server, make a cluster and its agent's credential:</p>
      <Command text={create} />
      <p>Then, where the cluster can be reached (or inside it), start its agent:</p>
      <Command text={run} />
      <p>Workloads appear here a few seconds later. The agent only ever calls out; nothing calls in.</p>
    </Empty>
  );
}

function Command({ text }: { readonly text: string }) {
  return (
    <div class="command">
      <code>{text}</code>
      <CopyButton text={text} label="Copy the command" />
    </div>
  );
}
