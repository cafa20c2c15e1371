import { listAccounts, listRoles, listRules } from "../api/administration";
import type { Rule } from "../api/shapes";
import { clusterName, useClusters, type Clusters } from "../clusters/context";
import { Command } from "../components/command";
import { ErrorState, Skeleton } from "../components/placeholders";
import { useLiveQuery } from "../hooks/live_query";
import { CopyCommand, Table } from "./table";

async function fetchRules(signal: AbortSignal) {
  const [{ rules }, { roles }, { accounts }] = await Promise.all([
    listRules(signal),
    listRoles(signal),
    listAccounts(signal),
  ]);
  return { rules, roles, names: new Map(accounts.map(({ clientId, name }) => [clientId, name])) };
}

/** Who may do what, and where; and what each role means. */
export function Rules() {
  const { data, error, refresh } = useLiveQuery("rules", fetchRules, undefined);
  const clusters = useClusters();
  if (data === undefined)
    return error === undefined ? <Skeleton rows={6} /> : <ErrorState error={error} retry={refresh} />;
  return (
    <>
      <section class="block">
        <h2>Rules</h2>
        <Table label="Rules" columns={["Who", "Kind", "Role", "Where", "Made by", "Commands"]} empty="There is no rule.">
          {data.rules.map((rule) => (
            <tr key={rule.id}>
              <th scope="row">{data.names.get(rule.subject) ?? rule.subject}</th>
              <td>{rule.subjectKind}</td>
              <td>{rule.role}</td>
              <td>{scopeText(rule, clusters)}</td>
              <td>{rule.managedBy ? `the file ${rule.managedBy}` : (rule.createdBy ?? "–")}</td>
              <td>{rule.id && <CopyCommand label="remove" words={["admin", "rule", "remove", rule.id]} />}</td>
            </tr>
          ))}
        </Table>
        <h3>Add one, or keep all in a file</h3>
        <Command text="watchbill admin rule add --user ada@example.com --role viewer --project NAME" />
        <Command text="watchbill admin apply --file access.yaml --dry-run" />
      </section>
      <section class="block">
        <h2>Roles</h2>
        <Table label="Roles" columns={["Role", "What it is for", "Permissions"]} empty="There is no role.">
          {data.roles.map((role) => (
            <tr key={role.name}>
              <th scope="row">{role.name}</th>
              <td class="wraps">{role.description}</td>
              <td class="wraps">{role.permissions.join(", ")}</td>
            </tr>
          ))}
        </Table>
      </section>
    </>
  );
}

function scopeText(rule: Rule, clusters: Clusters): string {
  if (rule.scopeKind === "tenant") return "everywhere";
  const name = rule.scopeKind === "cluster" ? clusterName(clusters, rule.scopeId) : rule.scopeId;
  return `${rule.scopeKind} ${name}`;
}
