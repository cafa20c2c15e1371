/** Administration: clusters, rules, accounts, users, the audit log, and one's own access keys. */

import type { ComponentChildren } from "preact";
import { EmptyState } from "../components/placeholders";
import { Link, useRoute } from "../router";
import { useMe } from "../session";
import { Accounts } from "./accounts";
import { Audit } from "./audit";
import { Clusters } from "./clusters";
import { Keys } from "./keys";
import { Rules } from "./rules";
import { Reading } from "./table";
import { ADMIN_TABS, adminTabs, adminUrl } from "./tabs";
import { Users } from "./users";

const PARTS: Readonly<Record<string, () => ComponentChildren>> = {
  clusters: () => <Clusters />,
  rules: () => <Rules />,
  accounts: () => <Accounts />,
  users: () => <Users />,
  audit: () => <Audit />,
  keys: () => <Keys />,
};

export function AdminPage() {
  const { query } = useRoute();
  const tabs = adminTabs(useMe()?.permissions ?? []);
  const asked = query.get("tab") ?? tabs[0]!.word;
  const isSeen = tabs.some((tab) => tab.word === asked);
  return (
    <div class="page">
      <h1 class="off-screen">Administration</h1>
      <nav class="switch" aria-label="Administration">
        {tabs.map(({ word, label }) => (
          <Link key={word} to={adminUrl(word)} aria-current={word === asked ? "true" : undefined}>
            {label}
          </Link>
        ))}
      </nav>
      {isSeen && asked !== "audit" && <Reading />}
      {isSeen ? PARTS[asked]!() : <NotSeen asked={asked} />}
    </div>
  );
}

function NotSeen({ asked }: { readonly asked: string }) {
  const tab = ADMIN_TABS.find(({ word }) => word === asked);
  if (tab === undefined) return <EmptyState title={`Administration has no part “${asked}”`} />;
  return (
    <EmptyState title={`You may not see ${tab.label}`}>
      <p>
        It takes a role with the permission <code>{tab.permission}</code>; an administrator can give you one.
      </p>
    </EmptyState>
  );
}
