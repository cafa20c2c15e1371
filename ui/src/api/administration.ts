/** What the page *Administration* reads: accounts, users, rules, the audit log, access keys. */

import { getJson } from "./http";
import type { AccessKeyList, AccountList, AuditEvents, RoleList, RuleList, UserList } from "./shapes";

const ADMIN = "/api/v1/admin";

async function read<T>(path: string, signal: AbortSignal): Promise<T> {
  return (await getJson<T>(path, signal)).body;
}

export const listAccounts = (signal: AbortSignal) => read<AccountList>(`${ADMIN}/accounts`, signal);
export const listUsers = (signal: AbortSignal) => read<UserList>(`${ADMIN}/users`, signal);
export const listRules = (signal: AbortSignal) => read<RuleList>(`${ADMIN}/rules`, signal);
export const listRoles = (signal: AbortSignal) => read<RoleList>(`${ADMIN}/roles`, signal);
export const listAudit = (query: URLSearchParams, signal: AbortSignal) =>
  read<AuditEvents>(`${ADMIN}/audit?${query}`, signal);
export const listKeys = (signal: AbortSignal) => read<AccessKeyList>("/api/v1/me/keys", signal);
