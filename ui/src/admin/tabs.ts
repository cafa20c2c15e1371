/** The parts of the page *Administration*, and who sees which. */

export interface AdminTab {
  readonly word: string;
  readonly label: string;
  /** Empty = everybody. */
  readonly permission: string;
}

export const ADMIN_TABS: readonly AdminTab[] = [
  { word: "clusters", label: "Clusters", permission: "clusters:write" },
  { word: "rules", label: "Rules", permission: "access:read" },
  { word: "accounts", label: "Accounts", permission: "access:read" },
  { word: "users", label: "Users", permission: "access:read" },
  { word: "audit", label: "Audit log", permission: "audit:read" },
  { word: "keys", label: "My access keys", permission: "" },
];

export function adminTabs(permissions: readonly string[]): readonly AdminTab[] {
  return ADMIN_TABS.filter(({ permission }) => permission === "" || permissions.includes(permission));
}

export function adminUrl(word: string, more: Readonly<Record<string, string>> = {}): string {
  const query = new URLSearchParams({ tab: word });
  for (const [name, value] of Object.entries(more)) if (value !== "") query.set(name, value);
  return `/admin?${query}`;
}
