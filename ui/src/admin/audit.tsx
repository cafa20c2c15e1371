import { listAudit } from "../api/administration";
import { Instant } from "../components/instant";
import { ErrorState, Skeleton, StaleBar } from "../components/placeholders";
import { useLiveQuery } from "../hooks/live_query";
import { count } from "../model/format";
import { Link, navigate, useRoute } from "../router";
import { Table } from "./table";
import { adminUrl } from "./tabs";

const SHOWN = 200;
const EVERY_MS = 15_000;

/** Who asked what, from where, and how it ended; the latest first. */
export function Audit() {
  const { query } = useRoute();
  const subject = query.get("subject") ?? "";
  const operation = query.get("operation") ?? "";
  const asked = new URLSearchParams({ limit: String(SHOWN) });
  if (subject !== "") asked.set("subject", subject);
  if (operation !== "") asked.set("operation", operation);
  const { data, error, at, refresh } = useLiveQuery(`audit ${asked}`, (signal) => listAudit(asked, signal), EVERY_MS);
  if (data === undefined)
    return error === undefined ? <Skeleton rows={10} /> : <ErrorState error={error} retry={refresh} />;
  return (
    <section class="block">
      <h2>Audit log</h2>
      <StaleBar error={error} at={at} retry={refresh} />
      <form
        class="admin-form"
        onSubmit={(event) => {
          event.preventDefault();
          const form = new FormData(event.currentTarget);
          const text = (name: string): string => String(form.get(name) ?? "").trim();
          navigate(adminUrl("audit", { subject: text("subject"), operation: text("operation") }));
        }}
      >
        <label>
          Subject <input key={subject} name="subject" defaultValue={subject} autocomplete="off" />
        </label>
        <label>
          Operation <input key={operation} name="operation" defaultValue={operation} autocomplete="off" />
        </label>
        <button type="submit" class="button">
          Show
        </button>
        {(subject !== "" || operation !== "") && <Link to={adminUrl("audit")}>Show all</Link>}
      </form>
      <Table
        label="Audit log"
        columns={["When", "Subject", "Operation", "Target", "Outcome", "Times", "Address", "Details"]}
        empty="No event matches."
      >
        {data.events.map((event) => (
          <tr key={event.id}>
            <td>
              <Instant at={event.lastAt} />
            </td>
            <th scope="row">
              <Link to={adminUrl("audit", { subject: event.subject })}>{event.subject || "nobody"}</Link>
            </th>
            <td>
              <Link to={adminUrl("audit", { operation: event.operation })}>{event.operation}</Link>
            </td>
            <td>{event.target}</td>
            <td class="is-number">{event.outcome}</td>
            <td class="is-number">{count(event.count)}</td>
            <td>{event.address}</td>
            <td class="wraps">{event.details}</td>
          </tr>
        ))}
      </Table>
      {data.events.length === SHOWN && <p class="muted">The latest {SHOWN}; narrow them, or read more with <code>watchbill admin audit</code>.</p>}
    </section>
  );
}
