# What the files of this folder have in common. `$w` is the workload's state, as README.md lists it.
def present: with_entries(select(.value != null));
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
def goes_on: has_run and ($w.suspended or is_over | not);
def is_up: $w.stage | IN("running", "scaling", "completing");
def is_stopped: $w.stage == "stopped";
def told(made): if $w.stage == "creating" then null else made end;
def ended_at: if is_over then $w.at.finished else null end;
def word($up; $starting): if is_up then $up else $starting end;

def condition($type; $is; $at; $reason; $message):
  {type: $type, status: (if $is then "True" else "False" end), reason: $reason, message: $message,
   lastTransitionTime: $at};
def condition($type; $is; $at; $reason): condition($type; $is; $at; $reason; "");
# True since the pods came up, False before and after.
def up($type): condition($type; is_up; (if is_up then $w.at.ready else $w.at.since end); (if is_up then "Ready" else "NotReady" end));

# Built-in owners.
def deployment($role; $name; $labels; $owner):
  role($role) as $r | wanted($role) as $wanted
  | ($labels + {"pod-template-hash": $w.hash}) as $hashed
  | {key: "deployment-\($role)", owner: $owner, kind: "Deployment.apps", $name, $labels,
     spec: {replicas: $wanted, selector: {matchLabels: $labels}, template: template($role; $labels)},
     status: {observedGeneration: 0, replicas: $r.present, updatedReplicas: $r.present, readyReplicas: $r.ready,
              availableReplicas: $r.ready, unavailableReplicas: ([$wanted - $r.ready, 0] | max)}},
    {key: "replicas-\($role)", owner: "deployment-\($role)", kind: "ReplicaSet.apps", name: "\($name)-\($w.hash)",
     labels: $hashed,
     spec: {replicas: $r.present, selector: {matchLabels: $hashed}, template: template($role; $hashed)},
     status: {observedGeneration: 0, replicas: $r.present, readyReplicas: $r.ready, availableReplicas: $r.ready}};
def stateful_set($role; $name; $labels; $owner):
  role($role) as $r
  | {key: "set-\($role)", owner: $owner, kind: "StatefulSet.apps", $name, $labels,
     spec: {replicas: wanted($role), serviceName: $name, selector: {matchLabels: $labels},
            template: template($role; $labels)},
     status: {observedGeneration: 0, replicas: $r.present, readyReplicas: $r.ready, availableReplicas: $r.ready,
              currentRevision: "\($name)-1", updateRevision: "\($name)-1"}};
def job($role; $name; $owner):
  role($role) as $r
  | {key: "job-\($role)", owner: $owner, kind: "Job.batch", $name,
     spec: {parallelism: $r.replicas, completions: $r.replicas, completionMode: "Indexed", backoffLimit: 0,
            suspend: $w.suspended, template: template($role)},
     status: ({startTime: $w.at.created, completionTime: (if completed then $w.at.finished else null end),
               conditions: (if completed then [condition("Complete"; true; $w.at.finished; "CompletionsReached")]
                            elif failed then [condition("Failed"; true; $w.at.finished; "BackoffLimitExceeded")]
                            else null end)}
              + (if is_over then {succeeded: $r.succeeded, failed: $r.failed} else {active: $r.active, ready: $r.ready} end)
              | present)};

# Kubeflow's training operator: a condition appears once it is first true.
def replica_specs:
  $w.roles | with_entries({key: (.key[:1] | ascii_upcase) + .key[1:],
                           value: (.value | {replicas, restartPolicy: "OnFailure", template})});
def kubeflow_status($kind):
  def told($type; $is; $at; $what): condition($type; $is; $at; "\($kind)\($type)"; "\($kind) \($w.name) \($what).");
  told({
    conditions: [
      told("Created"; true; $w.at.created; "is created"),
      (select(has_run) | told("Running"; goes_on; (if goes_on then $w.at.ready else $w.at.since end); "is running")),
      (select($w.suspended) | told("Suspended"; true; $w.at.suspended; "is suspended")),
      (select($w.at.resumed and ($w.suspended | not)) | told("Suspended"; false; $w.at.resumed; "is resumed")),
      (select(completed) | told("Succeeded"; true; $w.at.finished; "successfully completed")),
      (select(failed) | told("Failed"; true; $w.at.finished; "has failed because 1 replica failed"))
    ] | map(.lastUpdateTime = .lastTransitionTime),
    startTime: $w.at.created,
    completionTime: (if completed then $w.at.finished else null end),
    replicaStatuses: ($w.roles | with_entries({key: (.key[:1] | ascii_upcase) + .key[1:],
                                               value: (.value | {active, succeeded, failed})}))
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
