import { EmptyState } from "../components/placeholders";
import { useMe } from "../session";
import { ConnectCluster } from "./connect";

/** No cluster is visible: how to connect one for those who may, whom to ask for everybody else. */
export function NoClusters() {
  const me = useMe();
  if (me?.permissions.includes("clusters:write") === true) return <ConnectCluster />;
  return (
    <EmptyState title="No cluster is visible to you">
      <p>
        Either no cluster is connected yet, or your access rules cover none. Ask an administrator to connect a cluster or to
        extend your access.
      </p>
    </EmptyState>
  );
}
