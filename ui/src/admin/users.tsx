import { listUsers } from "../api/administration";
import { Instant } from "../components/instant";
import { ErrorState, Skeleton } from "../components/placeholders";
import { useLiveQuery } from "../hooks/live_query";
import { CopyCommand, Table } from "./table";

/** Everybody who has logged in through an identity provider. */
export function Users() {
  const { data, error, refresh } = useLiveQuery("users", listUsers, undefined);
  if (data === undefined)
    return error === undefined ? <Skeleton rows={6} /> : <ErrorState error={error} retry={refresh} />;
  return (
    <section class="block">
      <h2>Users</h2>
      <Table
        label="Users"
        columns={["Name", "Groups", "State", "Last seen", "Identity provider", "Commands"]}
        empty="Nobody has logged in through an identity provider yet."
      >
        {data.users.map((user) => (
          <tr key={user.id}>
            <th scope="row">{user.name}</th>
            <td>{user.groups.join(", ")}</td>
            <td>{user.isDisabled ? "disabled" : "active"}</td>
            <td>
              <Instant at={user.lastSeenAt} />
            </td>
            <td>{user.issuer}</td>
            <td>
              <CopyCommand
                label={user.isDisabled ? "enable" : "disable"}
                words={["admin", "user", user.isDisabled ? "enable" : "disable", user.id]}
              />
            </td>
          </tr>
        ))}
      </Table>
    </section>
  );
}
