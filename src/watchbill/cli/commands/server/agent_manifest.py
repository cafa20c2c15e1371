"""`agent manifest`: what `kubectl apply -f -` needs to run an agent, its cluster registered on the way."""

import dataclasses
import functools
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchbill.cli.commands.clusters import register_cluster
from watchbill.cli.commands.server.serve import read_credential
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.errors import Invalid
from watchbill.files import read_text

if TYPE_CHECKING:
    from watchbill.agent.manifest import AgentDeployment
    from watchbill.kinds.definition.definition import Definitions

_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Address of the server as the cluster reaches it.  [default: that of --url or the login]",
        show_default=False,
    ),
]
ClusterName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Register the cluster by this name.")
]
CredentialFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Take the agent's credential from FILE; with --name it is written there where FILE is missing.",
    ),
]
Base = Annotated[
    bool,
    typer.Option("--base", help="Without namespace and credential, as a base for kustomize."),
]


@server_command
async def _register(
    session: CommandContext,
    server: Server = None,
    name: ClusterName = None,
    credential: CredentialFile = None,
    base: Base = False,
    namespace: Annotated[str, typer.Option(help="Namespace of the agent.")] = "watchbill",
    image: Annotated[
        str | None,
        typer.Option(
            help="Image to run, as the cluster pulls it.  [default: watchbill:VERSION, in no registry]"
        ),
    ] = None,
    kinds: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with further kind definitions, for the agent."),
    ] = None,
) -> None:
    """Print the Kubernetes manifests of an agent: `… | kubectl apply -f -`.

    With --name the cluster is registered; with the --credential FILE of a registered cluster no server is
    contacted. The agent may read the kinds that the printed ClusterRole lists and nothing else. It trusts
    the authorities of --ca-file too.
    """
    assert name is not None, "without a name nothing is registered"
    deployment = _deployment(server or session.client.url, namespace, image, kinds, session.ca_file)
    definitions = _definitions(kinds)
    in_manifest_alone: AbstractContextManager[Callable[[bytes], object]] = nullcontext(bytes)
    secret = session.terminal.secret(credential) if credential else in_manifest_alone
    _print(deployment, definitions, await register_cluster(session, name, secret))


@functools.wraps(_register)
def manifest(**options: Any) -> None:
    """Where a credential is there, or none is wanted, no server is asked."""
    file, server = options["credential"], options["server"]
    is_there = file is not None and file.is_file()
    if options["name"] is not None and not is_there and not options["base"]:
        _register(**options)
        return
    if not is_there and not options["base"]:
        usage_error(
            f"There is no file {file}." if file else "The cluster is not named.",
            hint="pass --name NAME to register a cluster, or --credential FILE of one that is registered",
        )
    if not server:
        usage_error(
            "The server's address is not given.",
            hint="pass --server URL, as the cluster reaches it",
        )
    deployment = _deployment(
        server, *(options[name] for name in ("namespace", "image", "kinds", "ca_file"))
    )
    credential = None if options["base"] else read_credential(file)
    _print(deployment, _definitions(options["kinds"]), credential)


def _deployment(
    server: str, namespace: str, image: str | None, kinds: Path | None, ca_file: Path | None
) -> "AgentDeployment":
    """Raises Invalid."""
    from watchbill import __version__
    from watchbill.addresses import check_http_url
    from watchbill.agent.manifest import AgentDeployment

    check_http_url("--server", server)
    if not _NAMESPACE.fullmatch(namespace):
        raise Invalid(f"--namespace must be the name of a namespace, got '{namespace[:80]}'.")
    definition_files = sorted(kinds.glob("*.yaml")) if kinds is not None else []
    return AgentDeployment(
        server_url=server,
        image=image or f"watchbill:{__version__}",
        namespace=namespace,
        ca=read_text(ca_file) if ca_file is not None else None,
        kinds={file.name: read_text(file) for file in definition_files},
    )


def _definitions(kinds: Path | None) -> "Definitions":
    """Raises Invalid for definitions that cannot be used."""
    from watchbill.kinds.definition.loader import load_definitions

    return load_definitions(kinds)


def _print(
    deployment: "AgentDeployment", definitions: "Definitions", credential: str | None
) -> None:
    from watchbill.agent.manifest import agent_manifest

    deployment = dataclasses.replace(deployment, credential=credential)
    sys.stdout.write(agent_manifest(deployment, definitions))
