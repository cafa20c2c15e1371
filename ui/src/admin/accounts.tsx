import { listAccounts } from "../api/administration";
import type { Account } from "../api/shapes";
import { Command } from "../components/command";
import { Instant } from "../components/instant";
import { ErrorState, Skeleton } from "../components/placeholders";
import { useLiveQuery } from "../hooks/live_query";
import { CopyCommand, Table } from "./table";

/** Service accounts, and the access keys of all users. */
export function Accounts() {
  const { data, error, refresh } = useLiveQuery("accounts", listAccounts, undefined);
  if (data === undefined)
    return error === undefined ? <Skeleton rows={6} /> : <ErrorState error={error} retry={refresh} />;
  return (
    <>
      <section class="block">
        <h2>Service accounts</h2>
        <AccountTable label="Service accounts" accounts={data.accounts} commands={["rotate", "disable"]} />
        <h3>Make another one</h3>
        <p class="muted">
          As a viewer it reads everything; add --cluster or --project for less. Without --role it may do nothing until a rule says
          otherwise. Its secret is shown once.
        </p>
        <Command text="watchbill admin account create NAME --role viewer --output NAME.json" />
      </section>
      <section class="block">
        <h2>Access keys of users</h2>
        <AccountTable label="Access keys of users" accounts={data.accessKeys} commands={["disable"]} />
      </section>
    </>
  );
}

function AccountTable(props: {
  readonly label: string;
  readonly accounts: readonly Account[];
  /** What can be done about one that is not disabled: words of `watchbill admin account`. */
  readonly commands: readonly string[];
}) {
  return (
    <Table
      label={props.label}
      columns={["Name", "Client id", "State", "Created", "Expires", "Commands"]}
      empty="There are none."
    >
      {props.accounts.map((account) => (
        <tr key={account.clientId}>
          <th scope="row">{account.name}</th>
          <td>
            <code>{account.clientId}</code>
          </td>
          <td>{account.isDisabled ? "disabled" : "active"}</td>
          <td>
            <Instant at={account.createdAt} />
          </td>
          <td>{account.expiresAt ? <Instant at={account.expiresAt} /> : "never"}</td>
          <td>
            {!account.isDisabled &&
              props.commands.map((word) => (
                <CopyCommand key={word} label={word} words={["admin", "account", word, account.clientId]} />
              ))}
          </td>
        </tr>
      ))}
    </Table>
  );
}
