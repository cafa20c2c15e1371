"""How many files must be opened to understand one thing: over the functions that its first one calls."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src"
ACCESSORS = frozenset({"watchbill.kinds.objects.json_access", "watchbill.quantity"})
"""Their functions say by their names all that a reader needs: `text`, `at`, `parse_quantity`."""

QUESTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...], int]] = {
    "list workloads": (
        ("watchbill.api.resources.workloads:get_workloads",),
        ("watchbill.",),
        12,
    ),
    "watchbill why": (("watchbill.cli.commands.why:why",), ("watchbill.cli.",), 8),
    "why pending": (
        ("watchbill.kinds.pending.pending:pending_reasons",),
        ("watchbill.kinds.",),
        10,
    ),
    "login through an identity provider": (
        (
            "watchbill.api.login.oidc_login:start_oidc_login",
            "watchbill.api.login.oidc_login:finish_oidc_login",
            "watchbill.access.oidc.oidc_login:OidcLogin",
        ),
        ("watchbill.access.", "watchbill.api.login."),
        8,
    ),
}
"""Where to begin, the rooms that are counted, and the most files."""

Symbol = tuple[str, str]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in SOURCES.rglob("*.py")}


@cache
def module(name: str) -> tuple[dict[str, ast.stmt], dict[str, Symbol]]:
    """What a module defines at its top, and what it imports from others of ours ("" = the module itself)."""
    defined: dict[str, ast.stmt] = {}
    imported: dict[str, Symbol] = {}
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.Assign):
            defined |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined[node.target.id] = node
    for part in ast.walk(tree):
        if isinstance(part, ast.ImportFrom) and part.module:
            for alias in part.names:
                whole = f"{part.module}.{alias.name}"
                symbol = (whole, "") if whole in MODULES else (part.module, alias.name)
                if symbol[0] in MODULES:
                    imported[alias.asname or alias.name] = symbol
    return defined, imported


def annotations(node: ast.stmt) -> Iterator[ast.expr | None]:
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            yield part.returns
        elif isinstance(part, ast.arg | ast.AnnAssign):
            yield part.annotation


def uses(name: str, node: ast.stmt) -> Iterator[Symbol]:
    defined, imported = module(name)
    types = {
        id(part) for annotation in annotations(node) if annotation for part in ast.walk(annotation)
    }
    for part in ast.walk(node):
        if id(part) in types:
            continue
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            other = imported.get(part.value.id)
            if other is not None and not other[1]:
                yield other[0], part.attr
        elif isinstance(part, ast.Name):
            if part.id in defined:
                yield name, part.id
            elif imported.get(part.id, ("", ""))[1]:
                yield imported[part.id]


def files_to_open(starts: tuple[str, ...], rooms: tuple[str, ...]) -> set[str]:
    waiting: list[Symbol] = [(start.split(":")[0], start.split(":")[1]) for start in starts]
    seen: set[Symbol] = set()
    files: set[str] = set()
    while waiting:
        symbol = waiting.pop()
        name, what = symbol
        if symbol in seen or not name.startswith(rooms) or name in ACCESSORS:
            continue
        seen.add(symbol)
        node = module(name)[0].get(what)
        if node is None:
            continue
        if any(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) for part in ast.walk(node)):
            files.add(name)
        waiting += uses(name, node)
    return files


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_opens_few_files(question: str) -> None:
    starts, rooms, most = QUESTIONS[question]
    files = files_to_open(starts, rooms)
    assert len(files) <= most, sorted(files)
