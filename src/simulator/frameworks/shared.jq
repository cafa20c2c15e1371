# What the files of this folder have in common. `$w` is the workload's state, as README.md lists it.
def present: del(.[] | select(. == null));
def role($name): $w.roles[$name];
def template($name; $labels): role($name).template | .metadata.labels += $labels;
def template($name): role($name).template;
def wanted($name): if $w.suspended then 0 else role($name).replicas end;
def unless_suspended(objects): if $w.stage == "stopped" then empty else objects end;

# Moments of a life.
def completed: $w.stage == "completed";
def failed: $w.stage == "failed";
def is_over: completed or failed;
def has_run: $w.at.ready != null;
def goes_on: has_run and ($w.suspended or is_over or $w.stage == "resuming" | not);
def is_up: $w.stage | IN("running", "scaling", "completing");
def is_stopped: $w.stage == "stopped";
def reported(made): if $w.stage == "creating" then null else made end;
def ended_at: if is_over then $w.at.finished else null end;
def word($up; $starting): if is_up then $up else $starting end;

def condition($type; $is; $at; $reason; $message):
  {type: $type, status: (if $is then "True" else "False" end), reason: $reason, message: $message,
   lastTransitionTime: $at};
def condition($type; $is; $at; $reason): condition($type; $is; $at; $reason; "");
# True since the pods came up, False before and after.
def up($type): condition($type; is_up; (if is_up then $w.at.ready else $w.at.since end); (if is_up then "Ready" else "NotReady" end));

# Counters as most controllers write them: absent where 0.
def nonzero: del(.[] | select(. == 0));

# A Deployment's annotations, spec and status, of one revision.
def rolling($role; $name; $labels; $wanted):
  role($role) as $r
  | "\($name)-\($w.hash)" as $set
  | ($r.ready >= $wanted - 1 and ($r.ready > 0 or $wanted == 0)) as $is_available
  | (($r.ready >= $wanted and $r.updated == $r.present) or (has_run and $w.stage != "updating")) as $is_complete
  | {annotations: {"deployment.kubernetes.io/revision": "\($w.revision)"},
     spec: {replicas: $wanted, selector: {matchLabels: $labels}, template: template($role; $labels),
            strategy: {type: "RollingUpdate", rollingUpdate: {maxUnavailable: 1, maxSurge: 0}},
            revisionHistoryLimit: 10, progressDeadlineSeconds: 600},
     status: ({observedGeneration: 0, terminatingReplicas: $r.leaving, conditions: [
         (if $is_available
          then condition("Available"; true; $w.at.ready // $w.at.since; "MinimumReplicasAvailable"; "Deployment has minimum availability.")
          else condition("Available"; false; $w.at.since; "MinimumReplicasUnavailable"; "Deployment does not have minimum availability.")
          end),
         (if failed
          then condition("Progressing"; false; $w.at.created; "ProgressDeadlineExceeded"; "ReplicaSet \"\($set)\" has timed out progressing.")
          elif $is_complete
          then condition("Progressing"; true; $w.at.created; "NewReplicaSetAvailable"; "ReplicaSet \"\($set)\" has successfully progressed.")
          else condition("Progressing"; true; $w.at.created; "ReplicaSetUpdated"; "ReplicaSet \"\($set)\" is progressing.")
          end)
       ] | map(.lastUpdateTime = .lastTransitionTime)}
       + ({replicas: $r.present, updatedReplicas: $r.updated, readyReplicas: $r.ready, availableReplicas: $r.ready,
           unavailableReplicas: ([$wanted - $r.ready, 0] | max)} | nonzero))};
# A ReplicaSet; `$c` counts its pods.
def replica_set($role; $key; $name; $labels; $hash; $revision; $c; $owner):
  ($labels + {"pod-template-hash": $hash}) as $hashed
  | {$key, $owner, kind: "ReplicaSet.apps", name: "\($name)-\($hash)", labels: $hashed,
     annotations: {"deployment.kubernetes.io/revision": $revision},
     spec: {replicas: $c.present, selector: {matchLabels: $hashed}, template: template($role; $hashed)},
     status: ({replicas: $c.present, terminatingReplicas: $c.leaving, observedGeneration: 0}
              + ({fullyLabeledReplicas: $c.present, readyReplicas: $c.ready, availableReplicas: $c.ready} | nonzero))};
# The ReplicaSets of all revisions so far; old ones stay, empty.
def replica_sets($role; $name; $labels; $owner):
  $w.children | to_entries[] | select(.key | startswith("rs-"))
  | replica_set($role; .key; $name; $labels; .value.hash; .value.number; .value; $owner);
# A Deployment that is never updated, and its ReplicaSet.
def deployment($role; $name; $labels; $owner):
  (rolling($role; $name; $labels; wanted($role))
   + {key: "deployment-\($role)", owner: $owner, kind: "Deployment.apps", $name, $labels}),
  replica_set($role; "replicas-\($role)"; $name; $labels; $w.hash; "\($w.revision)"; role($role); "deployment-\($role)");

# A StatefulSet's spec and status; `$c` counts its pods.
def ordered($role; $name; $labels; $wanted; $c):
  {spec: {replicas: $wanted, selector: {matchLabels: $labels}, template: template($role; $labels), serviceName: $w.name,
          podManagementPolicy: "Parallel", updateStrategy: {type: "RollingUpdate", rollingUpdate: {partition: 0}},
          revisionHistoryLimit: 10},
   status: (($c.present - $c.updated) as $current
            | {observedGeneration: 0, replicas: $c.present, collisionCount: 0, availableReplicas: $c.ready,
               currentRevision: "\($name)-\(if $current > 0 then $w.hashes[-2] else $w.hash end)",
               updateRevision: "\($name)-\($w.hash)"}
            + ({readyReplicas: $c.ready, updatedReplicas: $c.updated,
                currentReplicas: (if $current > 0 then $current else $c.updated end)} | nonzero))};
def stateful_set($role; $name; $labels; $owner):
  ordered($role; $name; $labels; wanted($role); role($role))
  + {key: "set-\($role)", owner: $owner, kind: "StatefulSet.apps", $name, $labels};

# A Job's spec and status; `$c` counts its pods. Its end is in its conditions, of which a running one has none.
def job_labels($name; $uid):
  {"batch.kubernetes.io/controller-uid": $uid, "batch.kubernetes.io/job-name": $name, "controller-uid": $uid, "job-name": $name};
def job_spec($role; $count; $name; $uid; $is_suspended):
  {parallelism: $count, completions: $count, backoffLimit: 3, completionMode: "NonIndexed", suspend: $is_suspended,
   selector: {matchLabels: {"batch.kubernetes.io/controller-uid": $uid}}, manualSelector: false,
   podReplacementPolicy: "TerminatingOrFailed", template: template($role; job_labels($name; $uid))};
def job_conditions:
  [(select($w.suspended) | condition("Suspended"; true; $w.at.suspended; "JobSuspended"; "Job suspended")),
   (select($w.at.resumed and ($w.suspended | not)) | condition("Suspended"; false; $w.at.resumed; "JobResumed"; "Job resumed")),
   (select(completed) | ("SuccessCriteriaMet", "Complete")
    | condition(.; true; $w.at.finished; "CompletionsReached"; "Reached expected number of succeeded pods")),
   (select($w.stage | IN("failed", "failing")) | ("FailureTarget", (select(failed) | "Failed"))
    | condition(.; true; $w.at.finished; "BackoffLimitExceeded"; "Job has reached the specified backoff limit"))]
  | map(.lastProbeTime = .lastTransitionTime);
def job_counts($c; $active):
  {terminating: $c.leaving, uncountedTerminatedPods: {}, ready: $c.ready}
  + ({active: $active, succeeded: $c.succeeded, failed: $c.failed} | nonzero);
def job_status($c; $started):
  job_conditions as $conditions
  | job_counts($c; if $w.stage | IN("completed", "completing", "failed", "failing") then 0 else $c.present end)
    + ({conditions: (if $conditions == [] then null else $conditions end),
        startTime: (if $w.suspended or $c.pods == 0 then null else $started end),
        completionTime: (if completed then $w.at.finished else null end)} | present);
def job($role; $name; $owner):
  role($role) as $r
  | {key: "job-\($role)", owner: $owner, kind: "Job.batch", $name,
     spec: {parallelism: $r.replicas, completions: $r.replicas, completionMode: "Indexed", backoffLimit: 0,
            suspend: $w.suspended, template: template($role)},
     status: ({startTime: $w.at.created, completionTime: (if completed then $w.at.finished else null end),
               conditions: (if completed then [condition("Complete"; true; $w.at.finished; "CompletionsReached")]
                            elif failed then [condition("Failed"; true; $w.at.finished; "BackoffLimitExceeded")]
                            else null end)}
              + (if is_over then {succeeded: $r.succeeded, failed: $r.failed} else {active: $r.present, ready: $r.ready} end)
              | present)};

# Kubeflow's training operator: a condition appears once it is first true.
def capitalized: (.[:1] | ascii_upcase) + .[1:];
def by_replica_type(part): reduce ($w.roles | keys_unsorted[]) as $name ({}; .[$name | capitalized] = ($w.roles[$name] | part));
def replica_specs: by_replica_type({replicas, restartPolicy: "OnFailure", template});
def kubeflow_condition($kind; $type; $is; $at; $what):
  condition($type; $is; $at; "\($kind)\($type)"; "\($kind) \($w.name) \($what).") | .lastUpdateTime = .lastTransitionTime;
def kubeflow_suspension($kind):
  (select($w.suspended) | kubeflow_condition($kind; "Suspended"; true; $w.at.suspended; "is suspended")),
  (select($w.at.resumed and ($w.suspended | not))
   | kubeflow_condition($kind; "Suspended"; false; $w.at.resumed; "is resumed") | .reason = "\($kind)Resumed");
def kubeflow_status($kind):
  reported({
    conditions: [
      kubeflow_condition($kind; "Created"; true; $w.at.created; "is created"),
      (select(has_run) | kubeflow_condition($kind; "Running"; goes_on; (if goes_on then $w.at.ready else $w.at.since end); "is running")),
      kubeflow_suspension($kind),
      (select(completed) | kubeflow_condition($kind; "Succeeded"; true; $w.at.finished; "successfully completed")),
      (select(failed) | kubeflow_condition($kind; "Failed"; true; $w.at.finished; "has failed because 1 replica failed"))
    ],
    startTime: $w.at.created,
    completionTime: (if completed then $w.at.finished else null end),
    replicaStatuses: by_replica_type({active: .present, succeeded, failed})
  } | present);
def kubeflow($kind; $specs):
  {spec: {runPolicy: {cleanPodPolicy: "None", suspend: $w.suspended}, ($specs): replica_specs},
   status: kubeflow_status($kind)};

# A Ray cluster's spec, of the roles head and worker.
def ray_spec:
  {rayVersion: "2.46.0",
   headGroupSpec: {rayStartParams: {"dashboard-host": "0.0.0.0"}, template: template("head")},
   workerGroupSpecs: [{groupName: "gpu", replicas: role("worker").replicas, minReplicas: 1, maxReplicas: 10,
                       rayStartParams: {}, template: template("worker")}]};
def ray_cluster($name):
  {key: "cluster", kind: "RayCluster.ray.io", $name, spec: ray_spec,
   status: {state: (if is_up then "ready" else "" end), desiredWorkerReplicas: role("worker").replicas,
            readyWorkerReplicas: role("worker").ready}};

# An agent sandbox's conditions: both from the first moment on, each since it last changed.
def sandbox_conditions:
  condition("Suspended"; is_stopped; (if is_stopped then $w.at.since else $w.at.resumed // $w.at.created end);
    (if is_stopped then "PodTerminated" elif $w.suspended then "PodNotTerminated" else "NotSuspended" end)),
  condition("Ready"; is_up;
    (if $w.suspended then $w.at.suspended elif has_run | not then $w.at.created
     elif $w.at.resumed != null and ($w.stage | IN("resuming", "pending", "starting")) then $w.at.suspended
     else $w.at.since end);
    (if $w.suspended then "SandboxSuspended" elif is_up then "DependenciesReady" else "DependenciesNotReady" end);
    (if is_up then "Pod is Ready; Service Exists" else "Pod exists; Service Exists" end));
def sandbox_status: reported({service: $w.name, serviceFQDN: "\($w.name).\($w.namespace).svc.cluster.local",
  selector: "agents.x-k8s.io/sandbox-name-hash=\($w.hash)", conditions: [sandbox_conditions]});
def sandbox_spec: {operatingMode: (if $w.suspended then "Suspended" else "Running" end), service: true,
  podTemplate: {metadata: {labels: template("sandbox").metadata.labels}, spec: template("sandbox").spec}};
