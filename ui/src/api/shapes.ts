/** The answers of the API, as far as the page reads them. Names are the wire's. */

export interface Amount<T> {
  readonly request?: T | null;
  readonly limit?: T | null;
}

export interface Requested {
  readonly gpuRequestType?: string | null;
  readonly gpu?: Amount<number> | null;
  readonly gpuMemory?: Amount<string> | null;
  readonly cpu?: Amount<number> | null;
  readonly cpuMemory?: Amount<string> | null;
  readonly extendedResources?: readonly Extended[] | null;
}

export interface Extended {
  readonly resource?: string | null;
  readonly quantity?: string | null;
}

export interface Allocated {
  readonly gpu?: number | null;
  readonly gpuMemory?: string | null;
  readonly cpu?: number | null;
  readonly cpuMemory?: string | null;
  readonly extendedResources?: readonly Extended[] | null;
}

export interface Condition {
  readonly type: string;
  readonly status: string;
  readonly message?: string;
  readonly reason?: string;
  readonly lastTransitionTime?: string | null;
}

export interface Endpoint {
  readonly host?: string;
  readonly port?: number;
  readonly path?: string;
  readonly tlsEnabled?: boolean | null;
  readonly protocol?: string;
  readonly url?: string;
}

export interface PendingReason {
  readonly source: string;
  readonly nodePool?: string;
  readonly reason: string;
  readonly message: string;
  readonly userMessage: string;
  readonly since?: string;
}

export interface Topology {
  readonly name?: string;
  readonly preferredPlacement?: string;
  readonly requiredPlacement?: string;
  readonly actualPlacement?: { readonly level: string; readonly value: string } | null;
}

export interface Workload {
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly namespace: string;
  readonly category: string;
  readonly clusterId: string;
  readonly projectId: string;
  readonly projectName: string;
  readonly departmentId: string;
  readonly departmentName: string;
  readonly submittedBy?: string;
  readonly phase: string;
  readonly phaseMessage?: string;
  readonly phaseReason?: string | null;
  readonly phaseUpdatedAt: string;
  readonly k8sPhase: string;
  readonly createdAt: string;
  readonly updatedAt: string;
  readonly completedAt?: string | null;
  readonly deletedAt: string | null;
  readonly guaranteedRuntimeEndsAt?: string | null;
  readonly priority: number | null;
  readonly priorityClassName: string;
  readonly preemptible?: boolean | null;
  readonly distributedFramework?: string;
  readonly aiApplicationName?: string;
  readonly runningPods: number;
  readonly requestedPods?: {
    readonly number?: number | null;
    readonly min?: number | null;
    readonly max?: number | null;
    readonly parallelism?: number | null;
    readonly completions?: number | null;
  };
  readonly workloadRequestedResources?: Requested | null;
  readonly podsRequestedResources?: Requested | null;
  readonly allocatedResources?: Allocated | null;
  readonly idleAllocatedGpus?: number | null;
  readonly totalPendingTimeSeconds?: number | null;
  readonly totalRunningTimeSeconds?: number | null;
  readonly requestedNodePools?: readonly string[];
  readonly currentNodePools?: readonly string[];
  readonly images?: readonly string[];
  readonly endpoints?: readonly Endpoint[];
  readonly conditions: readonly Condition[];
  readonly command?: string;
  readonly arguments?: string;
  readonly environmentVariables?: Readonly<Record<string, string>>;
  readonly topology?: Topology | null;
  readonly additionalFields?: {
    readonly pendingReasons?: readonly PendingReason[];
    readonly [name: string]: unknown;
  };
}

export interface IdleWorkload extends Workload {
  readonly idleGpuHours: number;
}

export interface IdleOwner {
  /** Null where workloads name nobody. */
  readonly submittedBy: string | null;
  readonly workloads: number;
  readonly idleGpus: number;
  readonly idleGpuHours: number;
}

/** The sums are over all that match, the workloads a page of them. */
export interface IdleGpus {
  readonly total: number;
  readonly idleGpus: number;
  readonly idleGpuHours: number;
  readonly owners: readonly IdleOwner[];
  readonly workloads: readonly IdleWorkload[];
}

/** The fleet at one instant; null = not known, which is not 0. */
export interface FleetMoment {
  readonly at: string;
  readonly workloads: number;
  readonly phases: Readonly<Record<string, number>>;
  readonly gpus: {
    readonly allocated: number;
    readonly measured: number;
    readonly idle: number | null;
    readonly total: number | null;
  };
  readonly pending: { readonly count: number; readonly medianWaitSeconds: number | null };
  readonly failedInLastDay: number;
}

export interface FleetFigures {
  readonly now: FleetMoment;
  readonly stepSeconds: number;
  readonly series: readonly FleetMoment[];
}

export interface Facet {
  readonly field: string;
  readonly values: readonly { readonly value: string; readonly count: number }[];
}

export interface Facets {
  readonly total: number;
  readonly facets: readonly Facet[];
}

export interface Spell {
  readonly phase: string;
  readonly phaseMessage?: string;
  readonly startedAt: string;
  readonly endedAt?: string;
}

export interface Element {
  readonly id: string;
  readonly name: string;
  readonly hierarchyLevel: number;
  readonly parentId?: string | null;
  readonly createdAt?: string;
  readonly kubernetesRef?: {
    readonly uid?: string;
    readonly name?: string;
    readonly gvk?: { readonly group?: string; readonly version?: string; readonly kind?: string };
  } | null;
}

export interface KindState {
  readonly group: string;
  readonly kind: string;
  readonly state: string;
  readonly since: string;
  readonly message?: string;
  readonly idleAfterSeconds?: number;
}

export interface NodePool {
  readonly nodePool: string;
  readonly nodes: number;
  readonly gpus: number;
  readonly gpuMemoryBytes?: number;
}

export interface Cluster {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly since?: string;
  readonly lastContactAt?: string;
  readonly createdAt: string;
  readonly agentVersion?: string;
  readonly kubernetesVersion?: string;
  readonly workloads: number;
  readonly takeovers?: number;
  readonly kinds?: readonly KindState[];
  readonly nodePools?: readonly NodePool[];
  readonly refused?: readonly { readonly id: string; readonly reason: string }[];
  readonly gaps?: readonly { readonly from: string; readonly to?: string }[];
}

export interface Me {
  readonly subject: string;
  readonly kind: string;
  readonly isAdministrator: boolean;
  readonly version: string;
  readonly scope: {
    readonly tenant: boolean;
    readonly clusterIds: readonly string[];
    readonly departmentIds: readonly (string | number)[];
    readonly projectIds: readonly (string | number)[];
  };
}

export interface TelemetryValue {
  readonly value: string;
  readonly groups?: readonly { readonly key: string; readonly value: string; readonly name?: string }[];
}

export interface Measurement {
  readonly type: string;
  readonly labels?: Readonly<Record<string, string>> | null;
  readonly values: readonly { readonly value: string; readonly timestamp?: string | null }[] | null;
}
