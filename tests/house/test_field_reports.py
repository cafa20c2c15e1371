"""docs/field-reports.md names for each report the test that would fail; each of them is there."""

import re
from pathlib import Path

import pytest

from tests.unit.kinds.cases.reading import cases

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "field-reports.md").read_text(encoding="utf-8")
ROWS = [line for line in DOCUMENT.splitlines() if line.startswith("|")][2:]
CASES = {case.id for case in cases()}


def path_of(name: str) -> Path:
    """A file of the page's tests by its whole path, another by as much of its path as only one has."""
    if name.startswith("ui/"):
        return ROOT / name
    (path,) = (ROOT / "tests").rglob(name)
    return path


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_a_report_names_a_test_that_is_there(row: str) -> None:
    reported, wrong, verdict, tests = (cell.strip() for cell in row.strip("|").split(" | "))
    assert reported
    assert wrong
    assert verdict.startswith("holds")
    named = re.findall(r"`([^`]+)`", tests)
    assert named
    source = ""
    for reference in named:
        file, _, function = reference.rpartition("::") if "::" in reference else ("", "", reference)
        if not function.startswith("test_") or function.endswith(".py") or "/" in function:
            file, function = function, ""
        if file:
            source = path_of(file).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in source, reference
    for case in re.findall(r"\((reports-[\w-]+)\)", tests):
        assert any(known.startswith(case) for known in CASES), case
