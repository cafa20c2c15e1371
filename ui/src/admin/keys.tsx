import { listKeys } from "../api/administration";
import { Command } from "../components/command";
import { Instant } from "../components/instant";
import { ErrorState, Skeleton } from "../components/placeholders";
import { useLiveQuery } from "../hooks/live_query";
import { useMe } from "../session";
import { CopyCommand, Table } from "./table";

/** For programs that act as the user who is logged in. */
export function Keys() {
  const { data, error, refresh } = useLiveQuery("access keys", listKeys, undefined);
  const isUser = useMe()?.kind === "user";
  if (data === undefined)
    return error === undefined ? <Skeleton rows={4} /> : <ErrorState error={error} retry={refresh} />;
  if (!isUser)
    return (
      <section class="block">
        <h2>My access keys</h2>
        <p class="muted">Access keys belong to users from an identity provider; a service account has its own secret.</p>
      </section>
    );
  return (
    <section class="block">
      <h2>My access keys</h2>
      <p class="muted">A program that has one acts as you. It lasts 90 days; its secret is shown once.</p>
      <Table label="My access keys" columns={["Name", "Client id", "State", "Expires", "Commands"]} empty="You have none.">
        {data.accessKeys.map((key) => (
          <tr key={key.clientId}>
            <th scope="row">{key.name}</th>
            <td>
              <code>{key.clientId}</code>
            </td>
            <td>{key.isDisabled ? "disabled" : "active"}</td>
            <td>{key.expiresAt ? <Instant at={key.expiresAt} /> : "never"}</td>
            <td>{!key.isDisabled && <CopyCommand label="delete" words={["key", "delete", key.clientId]} />}</td>
          </tr>
        ))}
      </Table>
      <Command text="watchbill key create NAME --output NAME.json" />
    </section>
  );
}
