"""Commands in documents and on the page are understood as written: commands, options, arguments."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pglast
import pytest
import typer

from drills.processes import haproxy, nginx
from watchbill.cli.app import build

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
ON_THE_PAGE = re.compile(r"""(?:text=|= )\{?(["`])(watchbill .*?)\1""")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
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


def inline(page: Path) -> list[str]:
    """What stands between single backticks."""
    return INLINE.findall(FENCED.sub("", page.read_text(encoding="utf-8")))


WRITTEN = [(page.name, words) for page in PAGES for words in commands(page)]
WRITTEN += commands_on_the_page()


def test_there_are_commands_to_look_at() -> None:
    assert len(WRITTEN) >= 8
    assert {"README.md", "operations.md"} <= {name for name, _ in WRITTEN}
    assert {"rules.tsx", "connect.tsx", "keys.tsx"} <= {name for name, _ in WRITTEN}


@pytest.mark.parametrize(("page", "words"), WRITTEN, ids=lambda value: " ".join(value))
def test_a_written_command_is_understood(page: str, words: list[str]) -> None:
    """Parsed by the command line itself, without being run."""
    understand(words)


def understand(words: list[str]) -> None:
    """Raises UsageError."""
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


DONE_AT_ONCE = ("watchbill COMMAND --help", "watchbill --install-completion")
"""Done while they are parsed."""
INCOMPLETE = {"MissingParameter", "NoArgsIsHelpError"}
"""What typer's own copy of click raises where a sentence names a command alone."""
INLINE_COMMANDS = [
    (page.name, span)
    for page in PAGES
    for span in inline(page)
    if span.startswith("watchbill ") and span not in DONE_AT_ONCE
]


@pytest.mark.parametrize(("page", "span"), INLINE_COMMANDS)
def test_a_command_within_a_sentence_exists(page: str, span: str) -> None:
    """It may leave out what it must be given, but names nothing that there is not."""
    words = shlex.split(span.split(" | ")[0])[1:]
    try:
        understand(words)
    except Exception as error:
        if type(error).__name__ not in INCOMPLETE:
            raise


def test_statements_for_the_database_are_sql() -> None:
    spans = [span for page in PAGES for span in inline(page)]
    statements = [
        span for span in spans if re.match(r"(SELECT|VACUUM|ALTER|CREATE) .*[a-z(]", span)
    ]
    assert len(statements) >= 5
    for statement in statements:
        pglast.parse_sql(statement)


def test_files_and_folders_that_commands_take_are_there() -> None:
    spans = [span for page in PAGES for span in inline(page)]
    named = [
        path
        for span in spans
        if span.startswith(("docker ", "kubectl ", "podman "))
        for path in re.findall(r"-[fk] ([^\s-]\S*)", span)
    ]
    assert {"deploy/image/Dockerfile", "deploy/kubernetes/server"} <= set(named)
    assert [path for path in named if not (PROJECT / path).exists()] == []


def test_extras_that_are_installed_exist() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {
        extra
        for page in PAGES
        for extra in re.findall(r"watchbill\[([a-z]+)\]", page.read_text(encoding="utf-8"))
    }
    assert named
    assert named <= project["optional-dependencies"].keys()


def test_proxies_are_configured_as_the_drills_have_them(tmp_path: Path) -> None:
    """Which run them: what the page says of HAProxy and nginx loses no request there."""
    page = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
    haproxy(tmp_path, 1, [2, 3])
    nginx(tmp_path, 1, [2, 3])
    (block,) = re.findall(r"^```\n(backend watchbill\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    drilled = {line.strip() for line in (tmp_path / "haproxy.cfg").read_text().splitlines()}
    for line in map(str.strip, block.splitlines()):
        if line.startswith("server "):
            options = line.split(" check ")[1]
            assert all(other.endswith(options) for other in drilled if other.startswith("server "))
        else:
            assert line in drilled
    directives = [span for span in INLINE.findall(page) if re.match(r"\w+ .*;$|max_fails=", span)]
    assert len(directives) >= 6
    for directive in directives:
        assert directive in (tmp_path / "nginx.conf").read_text()


def test_the_changelog_says_each_thing_once_and_whole() -> None:
    """Merges of lines that were reworded leave both, or half of one."""
    text = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^- .*?(?=^- |^#|^$|\Z)", text, re.MULTILINE | re.DOTALL)
    beginnings = [entry[:60] for entry in entries]
    assert len(entries) > 100
    assert [start for start in set(beginnings) if beginnings.count(start) > 1] == []
    assert [entry for entry in entries if entry.rstrip()[-1] not in '.`)"'] == []
