"""Commands in documents and on the page are understood as written: commands, options, arguments."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from watchbill.cli.app import build

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
ON_THE_PAGE = re.compile(r"""(?:text=|= )\{?(["`])(watchbill .*?)\1""")
SEPARATORS = {"|", ">", "<", "&&", "||", "&"}


def commands(page: Path) -> list[list[str]]:
    """The words of every `watchbill …` at a prompt, without what follows in a pipe."""
    collected = []
    for block in CONSOLE.findall(page.read_text(encoding="utf-8")):
        for line in re.findall(r"^\$ (.*(?:\\\n.*)*)", block, re.MULTILINE):
            words = shlex.split(line.replace("\\\n", " "), comments=True)
            for start in (n for n, word in enumerate(words) if Path(word).name == "watchbill"):
                if start and words[start - 1] not in SEPARATORS:
                    continue
                rest = words[start + 1 :]
                ends = [n for n, word in enumerate(rest) if word in SEPARATORS]
                collected.append(rest[: ends[0]] if ends else rest)
    return collected


def commands_on_the_page() -> list[tuple[str, list[str]]]:
    """The words of every command that the page offers to copy, with X for what it fills in."""
    collected = []
    for path in sorted((PROJECT / "ui" / "src").rglob("*.ts*")):
        for _, line in ON_THE_PAGE.findall(path.read_text(encoding="utf-8")):
            words = shlex.split(re.sub(r"\$\{.*?\}", "X", line.split(" | ")[0]))
            collected.append((path.name, words[1:]))
    return collected


WRITTEN = [(page.name, words) for page in PAGES for words in commands(page)]
WRITTEN += commands_on_the_page()


def test_there_are_commands_to_look_at() -> None:
    assert len(WRITTEN) >= 8
    assert {"README.md", "operations.md"} <= {name for name, _ in WRITTEN}
    assert {"rules.tsx", "connect.tsx", "keys.tsx"} <= {name for name, _ in WRITTEN}


@pytest.mark.parametrize(("page", "words"), WRITTEN, ids=lambda value: " ".join(value))
def test_a_written_command_is_understood(page: str, words: list[str]) -> None:
    """Parsed by the command line itself, without being run."""
    command, rest = typer.main.get_command(build()), words
    parent = None
    while True:
        context = command.make_context(command.name or "watchbill", list(rest), parent)
        chosen = getattr(command, "commands", {})
        remaining = [*context._protected_args, *context.args] if chosen else []
        if not remaining:
            return
        command, rest, parent = chosen[remaining[0]], remaining[1:], context


def test_the_page_of_the_command_line_names_every_command() -> None:
    page = (PROJECT / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page.replace("\\|", "/"), re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"[a-z]+", row)}

    def words(command: object) -> Iterator[str]:
        for name, inner in getattr(command, "commands", {}).items():
            yield name
            yield from words(inner)

    assert set(words(typer.main.get_command(build()))) <= named
