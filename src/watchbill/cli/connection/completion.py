"""Completion of workload names: what a shell asks for while somebody types, so quick, bounded and silent."""

import os
from contextlib import suppress

import typer

from watchbill.cli.connection.contexts import with_context
from watchbill.cli.connection.credentials import CliLogin
from watchbill.cli.output.terminal import safe

MOST_NAMES = 50
SECONDS = 1.5


def complete_name(context: typer.Context, incomplete: str) -> list[str]:
    """Names of live workloads that begin so. Nothing where the server cannot be asked, whatever the cause:
    an error in the middle of a command line would help nobody."""
    found: list[str] = []
    with suppress(Exception):
        found = _names(context.params, incomplete)
    return found


def complete_columns(incomplete: str) -> list[str]:
    """The last word of a comma list; the ones before it stay, and do not come again."""
    from watchbill.cli.output.columns import COLUMNS

    before, comma, begun = incomplete.rpartition(",")
    taken = set(before.split(","))
    return [
        before + comma + name for name in COLUMNS if name.startswith(begun) and name not in taken
    ]


def complete_sort_field(incomplete: str) -> list[str]:
    from watchbill.query import FIELDS

    return [name for name in FIELDS if name.lower().startswith(incomplete.lower())]


def _names(given: dict[str, object], begun: str) -> list[str]:
    import asyncio

    from watchbill.cli.connection.lookup import item
    from watchbill.cli.connection.session import client_of
    from watchbill.client import Selection

    flags = CliLogin(
        url=str(given.get("url") or ""),
        client_id=str(given.get("client_id") or ""),
        client_secret=str(given.get("client_secret") or ""),
    )
    credentials = given.get("credentials")
    path = credentials if isinstance(credentials, os.PathLike) else None
    named = given.get("context")
    flags = with_context(flags, str(named) if named else None, path, os.environ)  # type: ignore[arg-type]
    filters = (item("name", begun, "=^"),) if begun else ()

    async def ask() -> list[str]:
        async with asyncio.timeout(SECONDS), client_of(flags, path)() as client:  # type: ignore[arg-type]
            page = await client.workload_list(
                Selection(filters=filters, sort_by="name"), limit=MOST_NAMES
            )
            return [one["name"] for one in page.workloads]

    return [name for name in dict.fromkeys(asyncio.run(ask())) if safe(name) == name]
