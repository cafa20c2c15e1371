/** The answers of the API, by the names of its OpenAPI document, which the build turns into `openapi.ts`. */

import type { components } from "./openapi";

type Schemas = components["schemas"];
type Item<T> = T extends readonly (infer U)[] ? U : never;

export type Workload = Schemas["Workload"] & {
  readonly additionalFields?: Schemas["AdditionalFields"] & Readonly<Record<string, unknown>>;
};
export type PendingReason = Schemas["PendingReason"];
export type Requested = Schemas["WorkloadRequestResources"];
export type Allocated = Schemas["WorkloadAllocatedResources"];
export type Condition = Schemas["Condition1"];
export type Endpoint = Schemas["Endpoint"];
export type Pod = Schemas["PodResponse"];
export type PodContainer = Schemas["PodContainer"];
export type Project = Schemas["ProjectResponse"];
export type Department = Schemas["DepartmentResponse"];
export type ClusterNode = Schemas["NodeResponse"];
export type NodeDevice = Schemas["NodeDevice"];
export type HistoryRecord = Schemas["HistoryRecord"];
export type Element = Schemas["WorkloadElement"];
export type Topology = NonNullable<Schemas["Workload"]["topology"]>;
export type TelemetryValue = Item<Schemas["TelemetryResponse"]["values"]>;
export type Measurement = Schemas["MeasurementResponse"];

export type IdleWorkload = Workload & Schemas["IdleWorkload"];
export type IdleOwner = Schemas["IdleOwner"];
export type IdleGpus = Schemas["IdleWorkloadList"];
export type FleetMoment = Schemas["FleetMoment"];
export type FleetFigures = Schemas["Fleet"];
export type UsageReport = Schemas["UsageReport"];
export type UsageRow = Schemas["UsageRow"];
export type Utilization = Schemas["UtilizationSeries"];
export type UtilizationList = Schemas["UtilizationList"];
export type Facet = Schemas["Facet"];
export type Facets = Schemas["Facets"];
export type PhaseInterval = Schemas["PhaseInterval"];
export type KindState = Schemas["KindState"];
export type NodePool = Schemas["NodePoolCapacity"];
export type Cluster = Schemas["Cluster"];
export type Me = Schemas["Me"];

export type Account = Schemas["AccountEntry"];
export type AccountList = Schemas["AccountList"];
export type AccessKeyList = Schemas["AccessKeyList"];
export type AuditEvents = Schemas["AuditEvents"];
export type RoleList = Schemas["RoleList"];
export type Rule = Schemas["RuleEntry"];
export type RuleList = Schemas["RuleList"];
export type UserList = Schemas["UserList"];
