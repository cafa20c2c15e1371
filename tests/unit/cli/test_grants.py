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


ADMINISTRATIVE = {
    path: command
    for path, command in commands(get_command(build())).items()  # type: ignore[arg-type]
    if path[0] in CHANGING
}
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
