import { serverUrl } from "../base_path";
import { Command } from "../components/command";
import { EmptyState } from "../components/placeholders";

/** How to connect a cluster: log in, create its credential, start its agent. */
export function ConnectCluster() {
  const login = `watchbill login --url ${serverUrl()}`;
  const apply = `watchbill agent manifest --server ${serverUrl()} --name my-cluster --image REGISTRY/watchbill:VERSION --credential my-cluster.credential | kubectl apply -f -`;
  const create = "watchbill admin cluster create my-cluster --output my-cluster.credential";
  const run = `watchbill agent --server ${serverUrl()} --credential my-cluster.credential --kubeconfig ~/.kube/config`;
  return (
    <EmptyState title="No cluster is connected yet">
      <p>Log in with an account that may register clusters:</p>
      <Command text={login} />
      <p>
        Register a cluster, keep its agent's credential in a file, and start the agent in it, from the Watchbill image in your registry:
      </p>
      <Command text={apply} />
      <p>Or register it alone, and start the agent on a machine that reaches the cluster's API server:</p>
      <Command text={create} />
      <Command text={run} />
      <p>Workloads appear a few seconds later. The agent opens outgoing connections only.</p>
    </EmptyState>
  );
}
