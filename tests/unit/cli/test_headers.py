"""A member of a record has one header in all tables, and help speaks only of columns that there are."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import watchbill.cli
from watchbill.cli.app import build
from watchbill.cli.output.headers import HEADERS, header_row
from watchbill.query import USAGE_GROUPS

SOURCES = sorted(Path(watchbill.cli.__file__).parent.rglob("*.py"))
HEADER = re.compile(r"[A-Z][A-Z0-9]*(?:[-/][A-Z0-9]+)*(?:%|\([A-Z/]+\))?")
NAMED_IN_HELP = re.compile(
    r"(?<![\w$.-])[A-Z][A-Z0-9]+(?:[-/][A-Z0-9]+)*(?:%|\([A-Z/]+\))?(?![\w-])"
)
NO_COLUMNS = frozenset(
    {"AI", "API", "AS", "CLI", "CPU", "CSV", "FILE", "GPU", "GPUS", "HTTP", "ID", "JSON", "MCP"}
    | {"MIG", "NAME", "OF", "RFC", "TLS", "TSDB", "UID", "URL", "UTC", "VALUE", "YAML", "PEM", "CA"}
)
"""What help writes in capitals beside columns and the names of arguments."""


def commands(node: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    node = node or typer.main.get_command(build())
    for name, child in getattr(node, "commands", {}).items():
        yield from commands(child, (*path, name))
    if not hasattr(node, "commands"):
        yield " ".join(path), node


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_command_writes_headers_of_its_own(path: Path) -> None:
    if path.name in ("headers.py", "terminal.py"):  # the latter knows Unicode's categories
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts: list[ast.expr] = []
        if isinstance(node, ast.List | ast.Tuple):
            parts = node.elts
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "TableColumn":
            parts = [*node.args[:1], *node.args[:1]]
        texts = [part.value for part in parts if isinstance(part, ast.Constant)]
        written = [text for text in texts if isinstance(text, str) and HEADER.fullmatch(text)]
        assert len(written) < 2, written


@pytest.mark.parametrize("command", COMMANDS)
def test_help_speaks_of_columns_that_there_are(command: str) -> None:
    help_text = re.sub(r"`[^`]*`", "", COMMANDS[command].help or "")
    arguments = {
        word
        for parameter in COMMANDS[command].params
        for word in re.findall(r"[A-Z]+(?:-[A-Z]+)*", parameter.metavar or parameter.name.upper())
    }
    named = {word for word in NAMED_IN_HELP.findall(help_text) if "_" not in word}
    assert named - set(HEADERS.values()) - arguments - NO_COLUMNS == set()


def test_whatever_usage_is_grouped_by_has_a_header() -> None:
    assert header_row(*USAGE_GROUPS, "") == [
        *(
            "CLUSTER",
            "DEPARTMENT",
            "PROJECT",
            "OWNER",
            "NAMESPACE",
            "TYPE",
            "CATEGORY",
            "NODE-POOL",
        ),
        *("GPU-TYPE", "PRIORITY-CLASS", "WORKLOAD", "DAY", "WEEK", "MONTH", ""),
    ]


def test_a_header_is_in_capitals_without_blanks() -> None:
    """So that programs which split lines at blanks count the columns right."""
    assert [header for header in HEADERS.values() if not HEADER.fullmatch(header)] == []
