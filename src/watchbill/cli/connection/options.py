"""What several commands share: options, arguments, completion, what `--sort-by` understands, and moments."""

import os
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchbill.cli.connection.session import CliLogin, with_context
from watchbill.cli.output.terminal import AnswerFormat, TableFormat, safe
from watchbill.errors import Invalid

if TYPE_CHECKING:
    from watchbill.client import Client


_SPAN = re.compile(r"([1-9][0-9]{0,4})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
MAX_NAMES = 50
COMPLETION_SECONDS = 1.5


def complete_name(context: typer.Context, incomplete: str) -> list[str]:
    """Names of live workloads that begin so. Nothing where the server cannot be asked, whatever the cause:
    an error in the middle of a command line would help nobody."""
    names: list[str] = []
    with suppress(Exception):
        names = _completions(context.params, partial(_workload_names, begun=incomplete))
    return names


def complete_node(context: typer.Context, incomplete: str) -> list[str]:
    """Names of nodes that begin so, under the same rule."""
    names: list[str] = []
    with suppress(Exception):
        names = _completions(context.params, partial(_node_names, begun=incomplete))
    return names


def complete_project(context: typer.Context, incomplete: str) -> list[str]:
    """Names of projects that begin so, under the same rule."""
    names: list[str] = []
    with suppress(Exception):
        names = _completions(context.params, partial(_project_names, begun=incomplete))
    return names


async def _project_names(client: "Client", *, begun: str) -> list[str]:
    from watchbill.cli.connection.lookup import filter_item
    from watchbill.client.reader import project_list

    filters = (filter_item("name", begun, "=^"),) if begun else ()
    listed = await project_list(client, filters=filters, most=MAX_NAMES)
    return [project.name for project in listed.projects]


async def _node_names(client: "Client", *, begun: str) -> list[str]:
    from watchbill.cli.connection.lookup import filter_item

    filters = (filter_item("name", begun, "=^"),) if begun else ()
    return [node.name for node in (await client.nodes(filters=filters, most=MAX_NAMES)).nodes]


async def _workload_names(client: "Client", *, begun: str) -> list[str]:
    from watchbill.cli.connection.lookup import filter_item
    from watchbill.client import Selection

    filters = (filter_item("name", begun, "=^"),) if begun else ()
    page = await client.workload_list(Selection(filters=filters, sort_by="name"), limit=MAX_NAMES)
    return [document.workload.name for document in page.documents]


def complete_columns(incomplete: str) -> list[str]:
    """The last word of a comma list; the ones before it stay, and do not come again."""
    from watchbill.cli.output.columns import COLUMNS

    before, comma, begun = incomplete.rpartition(",")
    taken = set(before.split(","))
    return [
        before + comma + name for name in COLUMNS if name.startswith(begun) and name not in taken
    ]


def complete_sort_field(incomplete: str) -> list[str]:
    from watchbill.workload_fields import SORT_FIELDS

    return [name for name in SORT_FIELDS if name.lower().startswith(incomplete.lower())]


def _completions(
    given: dict[str, object], ask: "Callable[[Client], Awaitable[list[str]]]"
) -> list[str]:
    """What the server answers within a moment; without names that a terminal would not show as they are."""
    import asyncio

    from watchbill.cli.connection.session import client_factory, default_ca_file

    flags = CliLogin(
        url=str(given.get("url") or ""),
        client_id=str(given.get("client_id") or ""),
        client_secret=str(given.get("client_secret") or ""),
    )
    credentials = given.get("credentials")
    path = credentials if isinstance(credentials, os.PathLike) else None
    named = given.get("context")
    flags = with_context(flags, str(named) if named else None, path, os.environ)  # type: ignore[arg-type]
    open_client = client_factory(flags, path, ca_file=default_ca_file(os.environ))  # type: ignore[arg-type]

    async def names() -> list[str]:
        async with asyncio.timeout(COMPLETION_SECONDS), open_client() as client:
            return await ask(client)

    return [name for name in dict.fromkeys(asyncio.run(names())) if safe(name) == name]


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
Image = Annotated[
    str | None,
    typer.Option("--image", metavar="TEXT", help="Only with this text in the name of an image."),
]
Node = Annotated[
    str | None,
    typer.Option("--node", metavar="NAME", help="Only with a pod on this node."),
]
GpuType = Annotated[
    str | None,
    typer.Option(
        "--gpu-type",
        metavar="TEXT",
        help="Only on GPUs whose type contains this text, such as H100.",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        "-l",
        metavar="KEY=VALUE",
        help="Only with this label, or with any value of KEY. May be repeated: values of "
        "one KEY are alternatives, different KEYs must all match.",
        show_default=False,
    ),
]
Search = Annotated[
    str | None,
    typer.Option(
        "--search",
        "-s",
        help="Only with this text in the name, type, project, owner, phase and so on.",
    ),
]
Deleted = Annotated[bool, typer.Option("--deleted", help="Deleted workloads instead of live ones.")]
Project = Annotated[
    str | None,
    typer.Option("--project", "-p", envvar="WATCHBILL_PROJECT", help="Only in this project."),
]
Everywhere = Annotated[
    bool,
    typer.Option("--all-projects", "-A", help="In every project, whatever WATCHBILL_PROJECT says."),
]
AllWorkloads = Annotated[
    bool,
    typer.Option(
        "--all-workloads",
        "-a",
        help="All workloads, not only AI work: also operators, services and everything "
        "else that runs.",
    ),
]
ClusterOption = Annotated[
    str | None, typer.Option("--cluster", metavar="NAME|ID", help="Only in this cluster.")
]
SortBy = Annotated[
    str | None,
    typer.Option(
        "--sort-by",
        metavar="FIELD",
        help="API field or column to sort by.  [default: newest first for people, "
        "oldest first for programs]",
        show_default=False,
        autocompletion=complete_sort_field,
    ),
]
Descending = Annotated[bool, typer.Option("--desc", help="Sort in descending order.")]
CredentialFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the result to FILE instead, readable by you alone; FILE must not exist.",
    ),
]
Output = Annotated[AnswerFormat, typer.Option("--output", "-o", help="How to print.")]
TableOutput = Annotated[TableFormat, typer.Option("--output", "-o", help="How to print.")]
NoHeaders = Annotated[bool, typer.Option("--no-headers", help="Print no header line.")]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="At most this many.  [default: 50 for people, all for programs]",
        show_default=False,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="A,B,…",
        help="Columns to print, in this order.",
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
        metavar="NAME|ID",
        help="One workload, by name or id.",
        show_default=False,
        autocompletion=complete_name,
    ),
]


def sort_field(word: str) -> str:
    """The API's name of the field; a word that nobody knows stays, for the server to refuse it by name."""
    from watchbill.workload_fields import SORT_FIELDS

    names = {alias: name for name, field in SORT_FIELDS.items() for alias in field.aliases}
    names |= {name.lower(): name for name in SORT_FIELDS}
    return names.get(word.strip("{}").lstrip(".").lower(), word)


def parse_span(text: str) -> timedelta | None:
    """None for what is no number of minutes, hours, days or weeks."""
    match = _SPAN.fullmatch(text)
    return None if match is None else timedelta(**{_UNITS[match[2]]: int(match[1])})


def parse_moment(
    option: str, text: str, now: datetime, *, hint: str = "write 30m, 12h, 7d, 4w or 2026-11-01"
) -> datetime:
    """So long before `now`, or at that time. Raises Invalid, naming the option."""
    from watchbill.query import parse_instant

    span = parse_span(text)
    if span is not None:
        return now - span
    try:
        return parse_instant(option, text)
    except Invalid as error:
        raise Invalid(error.message, details=hint) from error
