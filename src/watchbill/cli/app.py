"""The command tree and the one place where a command's end becomes an exit code."""

import contextlib
import io
import os
import sys
from collections.abc import Sequence

import typer
from typer.core import TyperGroup

from watchbill.cli import (
    clusters,
    describe,
    fleet,
    kinds,
    listing,
    mcp,
    runai,
    serving,
    structure,
    top,
    why,
)
from watchbill.cli.failure import INTERRUPTED, OK, PIPE_CLOSED, tell

_HELP = """One live, truthful, searchable record of every AI workload in every Kubernetes cluster.

Commands that ask the server take its address and a login from --url, --client-id, --client-secret; or a
--credentials file (WATCHBILL_CREDENTIALS); or WATCHBILL_URL, WATCHBILL_CLIENT_ID, WATCHBILL_CLIENT_SECRET; or
RUNAI_BASE_URL, RUNAI_CLIENT_ID, RUNAI_CLIENT_SECRET.
"""


_COMMANDS = (
    listing.get,
    describe.describe,
    why.why,
    listing.idle,
    top.top,
    fleet.fleet,
    structure.history,
    structure.tree,
    listing.count,
    listing.export,
    clusters.clusters,
    mcp.mcp,
    serving.server,
    serving.agent,
    serving.demo,
)


class _PipeClosed(Exception):
    """Whoever read our output has left."""


class _Root(TyperGroup):
    """Keeps a closed pipe from typer, which would make it exit code 1."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosed from error


def _group(help_text: str) -> typer.Typer:
    return typer.Typer(
        help=help_text,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def build() -> typer.Typer:
    app = typer.Typer(
        cls=_Root,
        help=_HELP,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for command in _COMMANDS:
        app.command()(command)
    app.add_typer(_run_ai_words(), name="workload")
    app.add_typer(_administration(), name="admin")
    app.add_typer(_kinds(), name="kinds")
    app.command()(version)
    return app


def _run_ai_words() -> typer.Typer:
    workload = _group("The commands and flags of Run:ai's own command line.")
    workload.command("list")(runai.list_workloads)
    workload.command("describe")(runai.describe_workload)
    return workload


def _administration() -> typer.Typer:
    admin = _group("Administration; asks for an administrator's login.")
    cluster = _group("Clusters: register, list, remove.")
    cluster.command("create")(clusters.create)
    cluster.command("list")(clusters.clusters)
    cluster.command("delete")(clusters.delete)
    admin.add_typer(cluster, name="cluster")
    return admin


def _kinds() -> typer.Typer:
    group = _group("Definitions of kinds: list, show, check, import, try. No server is asked.")
    group.command("list")(kinds.list_kinds)
    group.command("show")(kinds.show)
    group.command("check")(kinds.check)
    group.command("import")(kinds.import_definition)
    group.command("try")(kinds.try_definition)
    return group


def version() -> None:
    """Print the version."""
    from watchbill import __version__

    print(f"watchbill {__version__}")


def run(arguments: Sequence[str]) -> int:
    """One command, from its words to its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = build()(args=list(arguments), prog_name="watchbill", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, _PipeClosed):
        return _pipe_closed()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        return tell(error)
    return code if isinstance(code, int) else OK


def _pipe_closed() -> int:
    """Whoever reads has enough: end quietly, and keep the interpreter from flushing once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED
