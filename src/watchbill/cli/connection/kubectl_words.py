"""What to type here instead of a word or flag that kubectl knows and this command line does not."""

import re

READS_ONLY = "Watchbill never changes a cluster; use kubectl for that"

COMMANDS: dict[str, str] = {
    **dict.fromkeys(("list", "ls", "ps", "jobs", "workloads"), "`watchbill get` lists workloads"),
    **dict.fromkeys(("find", "search", "grep"), "`watchbill get --search TEXT` finds workloads"),
    **dict.fromkeys(("show", "inspect"), "`watchbill describe NAME` shows one workload"),
    **dict.fromkeys(
        ("status", "explain"), "`watchbill why NAME` says why it is pending, or shows its status"
    ),
    **dict.fromkeys(
        (
            *("apply", "create", "delete", "edit", "patch", "replace", "scale", "autoscale", "run"),
            *(
                "rollout",
                "expose",
                "set",
                "label",
                "annotate",
                "taint",
                "cordon",
                "uncordon",
                "drain",
            ),
        ),
        READS_ONLY,
    ),
    **dict.fromkeys(
        ("exec", "attach", "cp", "port-forward"),
        "`watchbill describe NAME` ends with the kubectl commands for it",
    ),
    **dict.fromkeys(("queues", "queue"), "`watchbill projects` lists queues as projects"),
    "wait": "`watchbill get --watch` shows changes as they happen",
    "config": "`watchbill context list` lists the servers that are saved here",
    "cluster-info": "`watchbill clusters` lists the clusters and their state",
    "api-resources": "`watchbill kinds list` lists the kinds that have a definition",
    "gpus": "`watchbill capacity --by gpu-type` counts GPUs",
    "cost": "`watchbill usage` counts GPU-hours",
}
"""By the word that is no command."""

OPTIONS: dict[str, str] = {
    **dict.fromkeys(
        ("-n", "--namespace"),
        "-p NAME (--project) lists one project; without queues, a namespace is a project",
    ),
    "--all-namespaces": "-A (--all-projects) lists every project",
    "--selector": "-l KEY=VALUE (--label) filters by a label",
    "--field-selector": "-f FIELD==VALUE (--filter) filters by a field, as in -f phase==Pending",
    **dict.fromkeys(("--phase", "--status"), "-f phase==PHASE (--filter) lists one phase"),
    "--type": "-f type==TYPE (--filter) lists one type",
    "--show-labels": "--columns name,phase,labels shows labels",
    **dict.fromkeys(
        ("--follow", "--tail", "--previous", "--timestamps"),
        "`watchbill logs NAME` prints the kubectl commands that read logs; add kubectl's flags to those",
    ),
    "--kubeconfig": "only `watchbill agent` reads a cluster; other commands ask a Watchbill server",
}
"""By the option that a command does not have."""

RESOURCES: dict[str, str] = {
    **dict.fromkeys(("pod", "pods", "po"), "`watchbill pods` lists pods"),
    **dict.fromkeys(("node", "nodes", "no"), "`watchbill nodes` lists nodes"),
    **dict.fromkeys(("event", "events", "ev"), "`watchbill events NAME` shows a workload's events"),
    **dict.fromkeys(
        ("namespace", "namespaces", "ns", "project", "projects", "queue", "queues"),
        "`watchbill projects` lists projects",
    ),
    **dict.fromkeys(("cluster", "clusters"), "`watchbill clusters` lists clusters"),
    **dict.fromkeys(
        (
            *("workload", "workloads", "all", "job", "jobs", "deployment", "deployments", "deploy"),
            *("statefulset", "statefulsets", "sts", "replicaset", "replicasets", "rs"),
        ),
        "`watchbill get` lists workloads of every kind; --filter type==TYPE narrows",
    ),
}
"""By the word of a resource where the name of a workload is asked for."""

_NO_COMMAND = re.compile(r"No such command '([^']+)'")


def usage_hint(error: Exception) -> str | None:
    """Of what the command line's parser refused. None where kubectl has no such word either."""
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if option is not None:
        return _option_hint(str(option).lower(), context)
    if match := _NO_COMMAND.match(str(error)):
        return COMMANDS.get(match[1].lower())
    params = getattr(context, "params", {})
    name = params.get("name")
    if isinstance(name, str) and "unexpected extra argument" in str(error):
        return RESOURCES.get(name.lower())
    param = getattr(error, "param", None)
    if type(error).__name__ == "MissingParameter" and getattr(param, "metavar", None) == "NAME|ID":
        is_cluster = "cluster" in str(getattr(param, "help", ""))
        return f"`watchbill {'clusters' if is_cluster else 'get'}` lists the names"
    return None


def _option_hint(option: str, context: object) -> str | None:
    """None where the command does not have the option that the hint begins with either."""
    hint = OPTIONS.get(option)
    if hint is None or not hint.startswith("-"):
        return hint
    params = getattr(getattr(context, "command", None), "params", ())
    known = {word for param in params for word in param.opts}
    return hint if hint.split()[0] in known else None
