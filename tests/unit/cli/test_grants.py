"""What is granted is what was typed: no variable of the environment becomes part of a grant."""

import pytest
import typer
from typer.main import get_command

from watchbill.cli.app import build

CHANGING = ("admin", "backup", "restore")


def commands(
    group: typer.core.TyperGroup, path: tuple[str, ...] = ()
) -> dict[tuple[str, ...], object]:
    collected: dict[tuple[str, ...], object] = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            collected |= commands(command, (*path, name))
        else:
            collected[(*path, name)] = command
    return collected


COMMANDS = commands(get_command(build()))  # type: ignore[arg-type]
ADMINISTRATIVE = {path: command for path, command in COMMANDS.items() if path[0] in CHANGING}
CONNECTION = {"ca_file", "url", "client_id", "client_secret", "credentials", "context"}


@pytest.mark.parametrize("path", ADMINISTRATIVE, ids=" ".join)
def test_no_scope_comes_from_the_environment(path: tuple[str, ...]) -> None:
    command = ADMINISTRATIVE[path]
    from_environment = {
        option.name
        for option in command.params  # type: ignore[attr-defined]
        if option.envvar and option.name not in CONNECTION
    }
    assert from_environment == set()


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_argument_and_option_says_what_it_is(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    without_help = [
        parameter.name
        for parameter in command.params  # type: ignore[attr-defined]
        if not parameter.help
    ]
    assert without_help == []
    assert command.help  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", [("login",), ("logout",)], ids=" ".join)
def test_a_private_authority_can_be_named_where_a_login_begins_and_ends(
    path: tuple[str, ...],
) -> None:
    (ca_file,) = (option for option in COMMANDS[path].params if option.name == "ca_file")  # type: ignore[attr-defined]
    assert (ca_file.opts, ca_file.envvar) == (["--ca-file"], "WATCHBILL_CA_FILE")
