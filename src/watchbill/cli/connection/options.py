"""The flags that several commands share, declared once.

What `--sort-by` may be called: the API's field in any case, a column, or kubectl's path to it.
"""

from typing import Annotated

import typer

from watchbill.cli.connection.completion import complete_columns, complete_name, complete_sort_field
from watchbill.cli.output.formats import AnswerFormat

Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "-f",
        metavar="FIELD OP VALUE",
        help="As the API's filterBy, e.g. 'phase==Pending' or 'allocatedGPU>=2'; may be repeated. "
        "Operators: == != <= >= =@ (contains) !@ =^ (begins) =$ (ends).",
        show_default=False,
    ),
]
Search = Annotated[
    str | None,
    typer.Option("--search", "-s", help="Text in the name, type, project, owner, phase and so on."),
]
Deleted = Annotated[
    bool, typer.Option("--deleted", help="Workloads that are gone, instead of live ones.")
]
Project = Annotated[
    str | None,
    typer.Option("--project", "-p", envvar="WATCHBILL_PROJECT", help="Only in this project."),
]
Everywhere = Annotated[
    bool,
    typer.Option("--all-projects", "-A", help="In every project, whatever WATCHBILL_PROJECT says."),
]
ClusterOption = Annotated[
    str | None, typer.Option("--cluster", metavar="NAME|ID", help="Only in this cluster.")
]
SortBy = Annotated[
    str | None,
    typer.Option(
        "--sort-by",
        metavar="FIELD",
        help="Field of the API, or column, to sort by.  [default: newest first for people, "
        "oldest first for programs]",
        show_default=False,
        autocompletion=complete_sort_field,
    ),
]
Descending = Annotated[bool, typer.Option("--desc", help="Largest or latest first.")]
Output = Annotated[AnswerFormat, typer.Option("--output", "-o", help="How to print.")]
NoHeaders = Annotated[bool, typer.Option("--no-headers", help="Leave out the line of headers.")]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="At most so many.  [default: 50 for people, all for programs]",
        show_default=False,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="A,B,…",
        help="Which columns, in which order.",
        autocompletion=complete_columns,
    ),
]
Named = Annotated[
    str,
    typer.Argument(
        metavar="NAME|ID",
        help="Name or id of a workload.",
        show_default=False,
        autocompletion=complete_name,
    ),
]
MaybeNamed = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME|ID]",
        help="One workload, by name or id.",
        show_default=False,
        autocompletion=complete_name,
    ),
]


_ALSO = {
    "metadata.name": "name",
    "metadata.namespace": "projectName",
    "metadata.creationtimestamp": "createdAt",
    "status.phase": "phase",
    "age": "createdAt",
    "created": "createdAt",
    "completed": "completedAt",
    "deleted": "deletedAt",
    "since": "phaseUpdatedAt",
    "project": "projectName",
    "department": "departmentName",
    "owner": "submittedBy",
    "cluster": "clusterId",
    "gpu": "allocatedGPU",
    "idle": "idleAllocatedGpus",
    "nodepools": "nodepool",
    "framework": "distributedFramework",
    "application": "aiApplicationName",
    "class": "priorityClassName",
    "pending": "totalPendingTimeSeconds",
    "running": "totalRunningTimeSeconds",
}


def sort_field(word: str) -> str:
    """The API's name of the field; a word that nobody knows stays, for the server to refuse it by name."""
    from watchbill.query import FIELDS

    known = {name.lower(): name for name in FIELDS}
    plain = word.strip("{}").lstrip(".").lower()
    return known.get(plain) or _ALSO.get(plain, word)
