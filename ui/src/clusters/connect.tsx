import { CopyButton } from "../components/copy";
import { EmptyState } from "../components/placeholders";

/** How to connect a cluster: log in, create its credential, start its agent. */
export function ConnectCluster() {
  const login = `watchbill login --url ${window.location.origin}`;
  const create = "watchbill admin cluster create my-cluster --output agent.credential";
  const run = `watchbill agent --server ${window.location.origin} --credential agent.credential`;
  return (
    <EmptyState title="No cluster is connected yet">
      <p>Log in with an account that may register clusters:</p>
      <Command text={login} />
      <p>Register a cluster; this writes its agent's credential into a file:</p>
      <Command text={create} />
      <p>Start the agent inside the cluster, or where its API server can be reached:</p>
      <Command text={run} />
      <p>Workloads appear a few seconds later. The agent opens outgoing connections only.</p>
    </EmptyState>
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
