"""`probe`: a continuous test of the server that is in use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchbill.cli.commands.clusters import register_cluster
from watchbill.cli.commands.server.serve import LogLevel, read_credential
from watchbill.cli.connection.errors import FAILED, usage_error
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.terminal import table_lines

if TYPE_CHECKING:
    from simulator.probe import ServerProbe, StepTimes


@server_command
async def probe(
    session: CommandContext,
    credential: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Credential of the probe's own cluster; with --name it is registered where FILE is missing.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Register the probe's cluster by this name.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Run one workload, then exit.")] = False,
    interval: Annotated[
        float, typer.Option(min=1, max=86_400, help="Seconds between two workloads.")
    ] = 300.0,
    within: Annotated[
        float, typer.Option(min=1, max=600, help="Seconds within which a change must be shown.")
    ] = 30.0,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Serve metrics for a Prometheus on this port."),
    ] = None,
    log_level: LogLevel = "warning",
) -> None:
    """Test a running server from end to end, continuously: does it show changes in time and in order?

    Pods without GPUs live in a simulated cluster, and a real agent reports them; API and stream must show
    every phase.
    Exits with 1 if --once fails; otherwise it runs until it is stopped.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    from simulator.probe import ProbeMetrics, ProbeOptions, ServerProbe
    from watchbill.cli.connection.log_setup import log_to_stderr

    log_to_stderr(log_level)
    registry = CollectorRegistry()
    options = ProbeOptions(
        server_url=session.client.url,
        credential=(
            read_credential(credential)
            if credential.is_file()
            else await _register(session, credential, name)
        ),
        ca_file=session.ca_file,
        within_seconds=within,
        interval_seconds=interval,
    )
    if metrics_port is not None:
        start_http_server(metrics_port, registry=registry)
    async with ServerProbe(options, session.client, ProbeMetrics(registry)) as running:
        if once:
            _print(session, await running.check())
        else:
            await _until_stopped(running)


async def _register(session: CommandContext, file: Path, name: str | None) -> str:
    if name is None:
        usage_error(f"There is no file {file}.", hint="pass --name NAME to register a cluster")
    return await register_cluster(session, name, session.terminal.secret(file))


async def _until_stopped(running: "ServerProbe") -> None:
    import asyncio
    import signal

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await running.run(stop)


def _print(session: CommandContext, steps: "tuple[StepTimes, ...]") -> None:
    if not steps:
        raise typer.Exit(FAILED)
    rows = [
        [step.step, f"{step.api_seconds:.1f} s", f"{step.stream_seconds:.1f} s"] for step in steps
    ]
    for line in table_lines(header_row("phase", "api", "stream"), rows, session.terminal):
        session.terminal.print(line)
