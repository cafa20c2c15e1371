import { Age } from "../components/instant";
import { staleClusters } from "../model/cluster_health";
import { Link } from "../router";
import { useClusters } from "./context";

/** One line above numbers that include clusters whose data is not current. */
export function StaleClusters() {
  const stale = staleClusters(useClusters().data ?? []);
  if (stale.length === 0) return null;
  return (
    <p class="bar bar-warning" role="status">
      <span>
        Includes the last known state of{" "}
        {stale.map((cluster, index) => (
          <span key={cluster.id}>
            {index > 0 && ", "}
            <Link to="/clusters">{cluster.name}</Link> ({cluster.state}
            {cluster.lastContactAt !== undefined && (
              <>
                , last contact <Age since={cluster.lastContactAt} isShort /> ago
              </>
            )}
            )
          </span>
        ))}
        .
      </span>
    </p>
  );
}
