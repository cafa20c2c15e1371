"""The rules of the house that no other tool checks: sizes, names, and the words that people read."""

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import grimp
import pytest
from alembic.script import ScriptDirectory

from watchbill.store.postgres.database import migration_config

PROJECT = Path(__file__).parents[2]
SOURCES = sorted((PROJECT / "src").rglob("*.py"))
TESTS = sorted(Path(__file__).parents[1].rglob("*.py"))
MAX_FILES = 25
MAX_LINES = 500
MAX_FUNCTION_LINES = 40
MIGRATIONS = "migrations"

SHARED_CLASS_NAMES: dict[str, str] = {}
"""Class names that stand in two modules, each with the reason."""

LONG_FUNCTIONS = {
    "workload_of": "one constructor call, a line for each member of the contract",
    "make_row": "one constructor call, a line for each column",
    "__init__": "a composition root: each line puts one part in its place",
}
"""Functions that may be longer, each with the reason."""

REFUSED = (
    "a fault in watchbill",
    "a remark",
    "agent is silent",
    "another site's page",
    "are told",
    "be told",
    "beside the system's",
    "by strangers",
    "does not know the method",
    "fallen silent",
    "falls silent",
    "go on with what changes",
    "gpu models?",
    "heard nothing",
    "heard of",
    "is out within",
    "is told",
    "kubernetes said",
    "log in a program",
    "known to you",
    "kubectl lines",
    "look at the way there",
    "may not come in",
    "may not read workloads anywhere",
    "may not sign anybody in",
    "median wait",
    "never told",
    "node pools asked for",
    "open to this account",
    "out of contact",
    "ran in all",
    "server lacks",
    "shut a user out",
    "sign in",
    "sign you in",
    "sign-in",
    "sign-on",
    "signed in",
    "signing in",
    "silent cluster",
    "submitter of a workload",
    "such spells",
    "tells what reports",
    "takes nothing for a minute",
    "takes the permission",
    "that you may see",
    "the scheduler's own words",
    "there is nothing at this address",
    "to the second the same",
    "told apart",
    "took too long to answer",
    "twice is as good as once",
    "utilisation",
    "waited in all",
    "was told",
    "were told",
    "what it costs idle",
    "x-right",
)
"""Phrases that say in words of our own what the field has a word for."""

PRIVATE_NAMES = frozenset(
    {
        "anatomy",
        "attendant",
        "attendants",
        "chronicle",
        "contexting",
        "doom",
        "found",
        "furniture",
        "genesis",
        "heard",
        "hearing",
        "idling",
        "lacking",
        "lacks",
        "ledger",
        "lifeline",
        "one",
        "plausible",
        "remark",
        "roster",
        "said",
        "spell",
        "spells",
        "stranger",
        "strangers",
        "teller",
        "told",
        "trouble",
        "untold",
        "vouched",
    }
)
"""Names that say nothing to a newcomer: of an item, of an answer, of a part of ours."""
PRIVATE_PARTS = PRIVATE_NAMES - {"found", "one"}
"""The same within a longer name, where `not_found` and `one_day` are plain."""


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def test_no_folder_holds_more_than_a_look_takes_in() -> None:
    for folder in {path.parent for path in [*SOURCES, *TESTS]}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MAX_FILES, name_of(folder)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_is_one_idea_and_a_function_fits_a_screen(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    if MIGRATIONS in path.parts:
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name in LONG_FUNCTIONS:
                continue
            assert node.end_lineno is not None
            first = node.body[1] if len(node.body) > 1 and ast.get_docstring(node) else node.body[0]
            length = node.end_lineno - first.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name}: {length} lines"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_file_of_tests_is_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_a_class_name_stands_in_one_module() -> None:
    modules = defaultdict(list)
    for path in SOURCES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(name_of(path))
    twice = {name: paths for name, paths in modules.items() if len(paths) > 1}
    assert twice.keys() == SHARED_CLASS_NAMES.keys(), twice


def test_nothing_is_defined_below_what_runs_a_file_as_a_program() -> None:
    """It would not be there yet: the file works where it is imported, and fails where it is run."""
    programs = [path for folder in ("bench", "drills") for path in (PROJECT / folder).rglob("*.py")]
    for path in (*SOURCES, *TESTS, *programs):
        body = tree_of(path).body
        runs = [isinstance(each, ast.If) and "__name__" in ast.unparse(each.test) for each in body]
        assert not any(runs[:-1]), f"{path.relative_to(PROJECT)} goes on below its __main__"


def test_no_module_imports_itself_over_others() -> None:
    """Also not for type checkers alone: what is needed in a circle is one thing in two files."""
    graph = grimp.build_graph("watchbill", "simulator", cache_dir=None)
    order = TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    )
    order.prepare()  # raises CycleError, with the circle


def test_tests_and_benches_import_what_is_there() -> None:
    """No type checker reads them: what was renamed is missed when they run, which for some is once a day."""
    programs = [path for folder in ("bench", "drills") for path in (PROJECT / folder).rglob("*.py")]
    missing = [
        f"{name_of(path)}:{node.lineno}: {node.module}.{alias.name}"
        for path in (*TESTS, *programs)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith(("watchbill", "simulator"))
        for alias in node.names
        if not is_there(str(node.module), alias.name)
    ]
    assert missing == []


@cache
def is_there(module: str, name: str) -> bool:
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError:
        return False
    return hasattr(imported, name) or find_spec(f"{module}.{name}") is not None


def texts() -> Iterator[tuple[str, str]]:
    """Everything that people may read: strings of the code, what tests say of themselves, the page, the
    API's descriptions, docs. Migrations speak of what was."""
    for path in SOURCES:
        if MIGRATIONS in path.parts:
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield name_of(path), node.value
    for path in TESTS:
        for statement in ast.walk(tree_of(path)):
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                yield name_of(path), str(statement.value.value)
    plain = [
        *(PROJECT / "ui" / "src").rglob("*.ts*"),
        *(PROJECT / "src" / "watchbill" / "api").glob("*.yaml"),
        *(PROJECT / "contract").glob("*.json"),
        *(PROJECT / "docs").rglob("*.md"),
        PROJECT / "README.md",
    ]
    for path in plain:
        # the glossary names what is not to be said, and openapi.ts is made from the documents here
        if path.name not in ("glossary.md", "openapi.ts"):
            yield name_of(path), path.read_text(encoding="utf-8")


def test_people_read_the_fields_words() -> None:
    collected = set()
    for place, text in texts():
        words = re.sub(r"\s+", " ", text).lower()
        collected |= {(place, phrase) for phrase in REFUSED if re.search(rf"\b{phrase}\b", words)}
    assert collected == set()


def bound_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """What a file gives names to, and in which line: not what it only uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not node.name.startswith("test_"):
                yield node.name, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


def is_private(name: str) -> bool:
    parts = {part.lower() for part in re.split(r"_|(?<=[a-z])(?=[A-Z])", name)}
    return name.strip("_") in PRIVATE_NAMES or bool(parts & PRIVATE_PARTS)


def test_names_are_the_fields_words_in_tests_too() -> None:
    helpers = [path for room in ("bench", "drills") for path in (PROJECT / room).rglob("*.py")]
    collected = [
        f"{name_of(path)}:{line} {name}"
        for path in [*SOURCES, *TESTS, *helpers]
        if MIGRATIONS not in path.parts
        for name, line in bound_names(tree_of(path))
        if is_private(name)
    ]
    assert collected == []


def test_pages_name_files_that_are_there() -> None:
    """`room/file.py` in the documents, below src, src/watchbill or the project."""
    roots = (PROJECT, PROJECT / "src", PROJECT / "src" / "watchbill")
    for page in (
        *(PROJECT / "docs").rglob("*.md"),
        PROJECT / "README.md",
        PROJECT / "CONTRIBUTING.md",
    ):
        for name in re.findall(r"`([a-z_]+(?:/[a-z_]+)+\.(?:py|yaml))`", page.read_text("utf-8")):
            assert any((root / name).exists() for root in roots), f"{page.name} names {name}"


SHARED_BY_ALL = re.compile(r"([\w.]*\.)?(asyncio|time)(\.\w+)?")


def test_no_test_replaces_what_its_whole_process_waits_by() -> None:
    """Servers that outlast a test run in the same loop: one whose sleep returns at once never yields again."""
    replaced = [
        f"{name_of(path)}:{node.lineno}"
        for path in TESTS
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("setattr", "delattr", "patch", "object")
        and node.args
        and SHARED_BY_ALL.fullmatch(ast.unparse(node.args[0]).strip("'\""))
    ]
    assert replaced == []


def test_migrations_are_one_line() -> None:
    """Two that were written at the same time must not stand on the same one: no database could be made then."""
    heads = ScriptDirectory.from_config(migration_config()).get_heads()
    assert len(heads) == 1, f"put one behind the other by its down_revision: {heads}"
