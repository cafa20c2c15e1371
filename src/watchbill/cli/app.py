"""The command tree and the one place where a command's end becomes an exit code."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TextIO, cast

import typer
from typer.core import TyperGroup

from watchbill.cli.commands import (
    capacity,
    clusters,
    compare,
    context,
    describe,
    doctor,
    fleet,
    get,
    history,
    idle,
    kinds,
    login,
    mcp,
    nodes,
    pods,
    projects,
    runai,
    top,
    usage,
    why,
)
from watchbill.cli.commands.server import admin as administration
from watchbill.cli.commands.server import agent_manifest, database, probe, serve
from watchbill.cli.connection.errors import INTERRUPTED, OK, PIPE_CLOSED, report_error

_HELP = """One live, truthful, searchable record of every AI workload in every Kubernetes cluster.

Commands that ask the server take its address and a login from the first of these that is given: --url,
--client-id, --client-secret and --context; a --credentials file (WATCHBILL_CREDENTIALS); WATCHBILL_URL,
WATCHBILL_CLIENT_ID, WATCHBILL_CLIENT_SECRET; the context in use (`watchbill context use`); RUNAI_BASE_URL,
RUNAI_CLIENT_ID, RUNAI_CLIENT_SECRET; your own login (`watchbill login`).
"""


_COMMANDS = (
    get.get,
    describe.describe,
    why.why,
    compare.compare,
    idle.idle,
    top.top,
    fleet.fleet,
    usage.usage,
    capacity.capacity,
    nodes.nodes,
    projects.projects,
    projects.departments,
    history.history,
    history.tree,
    pods.pods,
    pods.logs,
    history.events,
    get.count,
    get.export,
    clusters.clusters,
    login.login,
    login.logout,
    doctor.doctor,
    login.open_page,
    mcp.mcp,
    probe.probe,
    serve.server,
    serve.demo,
    database.backup,
    database.restore,
)


_NAMES = {"open_page": "open"}
"""Commands whose word is not the name of their function."""


_SENTENCE = 1_000
"""Characters: longer than any first sentence of a command."""


class _PipeClosed(Exception):
    """Whoever read our output has left."""


class _Group(TyperGroup):
    """Lists its commands with whole sentences, on several lines where they need them, and not cut."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [
            each for name in self.list_commands(ctx) if not (each := self.commands[name]).hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(each.name or "", each.get_short_help_str(limit=_SENTENCE)) for each in commands]
            )


class _Root(_Group):
    """Keeps a closed pipe from typer, which would make it exit code 1."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosed from error


def _group(help_text: str) -> typer.Typer:
    return typer.Typer(
        cls=_Group,
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
    app.callback()(_root)
    for command in _COMMANDS:
        app.command(_NAMES.get(command.__name__))(command)
    app.add_typer(_agent(), name="agent")
    app.add_typer(_runai_commands(), name="workload")
    app.add_typer(_administration(), name="admin")
    app.add_typer(_access_keys(), name="key")
    app.add_typer(_contexts(), name="context")
    app.add_typer(_kinds(), name="kinds")
    app.command()(version)
    return app


def _agent() -> typer.Typer:
    group = typer.Typer(
        cls=_Group, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
    )
    group.callback(invoke_without_command=True)(serve.agent)
    group.command("manifest")(agent_manifest.manifest)
    return group


def _runai_commands() -> typer.Typer:
    workload = _group("The commands and flags of Run:ai's own command line.")
    workload.command("list")(runai.list_workloads)
    workload.command("describe")(runai.describe_workload)
    return workload


def _administration() -> typer.Typer:
    admin = _group("Administration. Requires an administrator's login.")
    cluster = _group(
        "Clusters: create, list, delete, repin to a rebuilt one, release or refuse held deletions."
    )
    cluster.command("create")(clusters.create)
    cluster.command("list")(clusters.clusters)
    cluster.command("delete")(clusters.delete)
    cluster.command("repin")(clusters.repin)
    cluster.command("release")(clusters.release)
    cluster.command("refuse")(clusters.refuse)
    admin.add_typer(cluster, name="cluster")
    for name, (help_text, commands) in _ADMINISTRATION.items():
        group = _group(help_text)
        for word, command in commands.items():
            group.command(word)(command)
        admin.add_typer(group, name=name)
    admin.command("apply")(administration.apply)
    admin.command("audit")(administration.audit)
    admin.command("recover")(database.recover)
    return admin


_ADMINISTRATION: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "account": (
        "Service accounts and access keys.",
        {
            "create": administration.create_account,
            "list": administration.list_accounts,
            "disable": administration.disable_account,
            "rotate": administration.rotate_account,
        },
    ),
    "user": (
        "Users from identity providers.",
        {
            "list": administration.list_users,
            "disable": administration.disable_user,
            "enable": administration.enable_user,
        },
    ),
    "rule": (
        "Access rules: who holds which role where.",
        {
            "add": administration.add_rule,
            "list": administration.list_rules,
            "remove": administration.remove_rule,
        },
    ),
    "role": ("Roles and what they allow.", {"list": administration.list_roles}),
    "keys": ("The keys that tokens are signed with.", {"rotate": administration.rotate_keys}),
    "tenant": ("Tenants.", {"create": administration.create_tenant}),
}


def _access_keys() -> typer.Typer:
    group = _group("Your access keys: for programs that act as you.")
    group.command("create")(login.create_key)
    group.command("list")(login.list_keys)
    group.command("delete")(login.delete_key)
    return group


def _contexts() -> typer.Typer:
    group = _group("Servers and logins, saved by name: list, use, set, delete.")
    group.command("list")(context.list_contexts)
    group.command("use")(context.use)
    group.command("set")(context.set_context)
    group.command("delete")(context.delete)
    return group


def _kinds() -> typer.Typer:
    group = _group("Definitions of kinds: list, show, check, import, try. No server is needed.")
    group.command("list")(kinds.list_kinds)
    group.command("show")(kinds.show)
    group.command("check")(kinds.check)
    group.command("import")(kinds.import_definition)
    group.command("try")(kinds.try_definition)
    return group


def _version_and_exit(is_wanted: bool) -> None:
    if is_wanted:
        version()
        raise typer.Exit


def _root(
    is_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version_and_exit, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """What stands before a command."""


def version() -> None:
    """Print the version."""
    from watchbill import __version__

    print(f"watchbill {__version__}")


def run(arguments: Sequence[str]) -> int:
    """One command, from its words to its exit code."""
    _open_closed_streams()
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
        if isinstance(error, OSError):
            _discard_output()
        return report_error(error)
    return code if isinstance(code, int) else OK


def _open_closed_streams() -> None:
    """Who started this closed some: what goes there is dropped, nothing can be read, and no file is opened in
    their places. Of a socket there uvloop would abort the process, and each child before it began."""
    sys.stdin = sys.stdin or _null(0, "r")
    sys.stdout = sys.stdout or _null(1, "w")
    sys.stderr = sys.stderr or _null(2, "w")


def _null(number: int, mode: str) -> TextIO:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    os.set_inheritable(number, True)
    return cast("TextIO", os.fdopen(number, mode, encoding="utf-8"))


def _pipe_closed() -> int:
    """Whoever reads has enough: end quietly."""
    _discard_output()
    return PIPE_CLOSED


def _discard_output() -> None:
    """Keeps the interpreter from flushing once more what cannot be written."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
