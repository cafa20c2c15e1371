"""`server`, `agent` and `demo`: the commands that run until they are stopped."""

import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchbill.cli.connection.errors import usage_error

if TYPE_CHECKING:
    from watchbill.serve import Started
    from watchbill.settings.agent import AgentSettings


def notify_systemd(environ: Mapping[str, str], state: str) -> None:
    """Send `state`, such as READY=1, to the socket that systemd named; does nothing where it named none.

    Whether systemd listens or not, the service runs.
    """
    path = environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)


_HOW = "`watchbill admin cluster create NAME --output FILE` creates one"
LogLevel = Annotated[
    str,
    typer.Option(
        envvar="WATCHBILL_LOG_LEVEL", help="debug, info, warning or error; the log goes to stderr."
    ),
]


def server(
    *,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on.  [WATCHBILL_HOST; default 127.0.0.1]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port.  [WATCHBILL_PORT; default 8600]"),
    ] = None,
    socket: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Listen on a unix socket instead, for a proxy on this machine.  [WATCHBILL_SOCKET]",
        ),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            help="PostgreSQL to use instead of the embedded one; prefer WATCHBILL_DATABASE_URL, "
            "since other users of the machine can see flags."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the embedded PostgreSQL.  [WATCHBILL_DATA_DIR]"),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Serve HTTPS with this certificate (PEM, with its chain), read again when it changes.  "
            "[WATCHBILL_TLS_CERT]",
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its key (PEM).  [WATCHBILL_TLS_KEY]")
    ] = None,
    recount: Annotated[
        bool,
        typer.Option(
            "--recount",
            help="Count all workloads again before starting, after rows were changed by hand.",
        ),
    ] = False,
    rebuild_usage: Annotated[
        bool,
        typer.Option(
            "--rebuild-usage",
            help="Compute GPU-hours again from what is still recorded; runs in the background.",
        ),
    ] = False,
    log_level: LogLevel = "info",
) -> None:
    """Run the server: the API, the page, and PostgreSQL unless another one is named.

    Its first start prints the id and the secret of the first administrator. Stop it with Ctrl-C.
    """
    from watchbill.cli.connection.log_setup import log_to_stderr
    from watchbill.serve import run_server
    from watchbill.settings.server import server_settings

    log_to_stderr(log_level)
    _warn_of_unknown_variables()
    settings = server_settings(
        os.environ,
        host=host,
        port=port,
        socket=socket,
        database_url=database_url,
        data_dir=data_dir,
        tls_cert=tls_cert,
        tls_key=tls_key,
        recounts=recount,
        rebuilds_usage=rebuild_usage,
    )
    ingest_command = (sys.executable, "-m", "watchbill.ingest_process", log_level)
    run_server(settings, ready=_announce, ingest_command=ingest_command)


def _warn_of_unknown_variables() -> None:
    """A misspelt setting has no effect: better reported at start than searched for."""
    import structlog

    from watchbill.settings.table import unknown_variables

    for name, meant in unknown_variables(os.environ):
        structlog.get_logger(__name__).warning(
            "unknown environment variable", name=name, did_you_mean=meant or None
        )


def _announce(started: "Started") -> None:
    print(f"Watchbill answers at {started.url}", flush=True)
    notify_systemd(os.environ, "READY=1")
    if started.login is not None:
        print(
            "\nThe first administrator (shown this once; keep the secret):\n"
            f"  client id      {started.login.client_id}\n"
            f"  client secret  {started.login.client_secret}\n"
            "If it is lost, `watchbill admin recover` on this machine creates another.\n",
            flush=True,
        )


def agent(
    ctx: typer.Context,
    *,
    server: Annotated[
        str,
        typer.Option(
            envvar="WATCHBILL_SERVER_URL", metavar="URL", help="Address of the server to report to."
        ),
    ] = "",
    credential: Annotated[
        Path | None,
        typer.Option(
            envvar="WATCHBILL_AGENT_CREDENTIAL",
            metavar="FILE",
            help="File with the line that `watchbill admin cluster create` printed.",
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            envvar="WATCHBILL_CA_FILE",
            metavar="FILE",
            help="Certificate authorities (PEM) to trust for the server, in addition to the system's.",
        ),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Cluster to watch; without it the cluster that the agent runs in."
        ),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    kinds: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with further kind definitions (YAML)."),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The cluster's own labels, categories and degree of redaction (YAML).",
        ),
    ] = None,
    log_level: LogLevel = "info",
) -> None:
    """Run the agent of one cluster: it reads the cluster and reports to the server.

    It only reads, and only makes outgoing connections. Stop it with Ctrl-C.
    """
    if ctx.invoked_subcommand is not None:
        return
    if not server:
        usage_error(
            "The server's address is not given.",
            hint="pass --server URL, or set WATCHBILL_SERVER_URL",
        )
    if credential is None:
        usage_error(
            "The agent's credential is not given.",
            hint="pass --credential FILE; `watchbill admin cluster create NAME --output FILE` creates one",
        )
    from watchbill.cli.connection.log_setup import log_to_stderr
    from watchbill.settings.agent import agent_settings

    log_to_stderr(log_level)
    _warn_of_unknown_variables()
    _run_agent(
        agent_settings(
            os.environ,
            server_url=server,
            credential=read_credential(credential),
            ca_file=ca_file,
            kubeconfig=kubeconfig,
            context=context,
            kinds_dir=kinds,
            settings_file=settings,
        )
    )


def read_credential(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        usage_error(f"Cannot read the credential file {path}: {error.strerror}.", hint=_HOW)
    except UnicodeDecodeError:
        text = ""
    if not text.startswith("wba.") or len(text.split()) != 1:
        usage_error(
            f"{path} contains no agent credential.",
            hint=_HOW,
        )
    return text


def _run_agent(settings: "AgentSettings") -> None:
    import asyncio
    import signal

    from watchbill.agent.run import run_agent
    from watchbill.background import loop_factory
    from watchbill.tracing.tracing import tracing_of

    tracing = tracing_of(os.environ, service="watchbill-agent")

    async def until_stopped() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await run_agent(settings, stop=stop, tracing=tracing)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            runner.run(until_stopped())
        finally:
            tracing.close()


def demo(
    *,
    host: Annotated[str, typer.Option(help="Address that the server listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the server.")] = 8600,
    clusters: Annotated[int, typer.Option(min=1, max=20, help="Simulated clusters.")] = 2,
    workloads: Annotated[
        int, typer.Option(min=1, help="Workloads in all clusters together.")
    ] = 500,
    seed: Annotated[int, typer.Option(help="Same seed, same fleet.")] = 7,
    rate: Annotated[
        float, typer.Option(min=0.0, help="Changes per second, in all clusters together.")
    ] = 2.0,
    credentials: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write address and login there, for WATCHBILL_CREDENTIALS."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Keep the data there.  [default: new data, removed at the end]"),
    ] = None,
    log_level: LogLevel = "warning",
) -> None:
    """Run a server and agents on simulated clusters: a fleet to look at, with nothing to install.

    Prints the address and a login. Stop it with Ctrl-C.
    """
    import asyncio

    from simulator.run import DemoOptions, run_demo
    from watchbill.cli.connection.log_setup import log_to_stderr

    log_to_stderr(log_level)
    asyncio.run(
        run_demo(
            DemoOptions(
                host=host,
                port=port,
                clusters=clusters,
                workloads=workloads,
                seed=seed,
                credentials=credentials,
                data_dir=data_dir,
                rate=rate,
            )
        )
    )
