"""Whatever the threat model promises names the test that shows it, and that test exists."""

import re
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "docs" / "threat-model.md").read_text()
REFERENCE = re.compile(
    r"`(?P<file>(?:(?:tests|bench)/[\w/]+/|bench/|tests/)?\w+\.py)(?:::(?P<own>\w+))?`"
    r"|`(?P<test>test_\w+)`"
)
ATTACKS = TEXT.partition("## Attacks, and what stands against them")[2].partition("\n## ")[0]
CLAIMS = [
    *(
        line
        for line in TEXT.partition("## Who can at most do what")[2].splitlines()
        if line.startswith("| ") and not re.fullmatch(r"\| .* \| shown by \|", line)
    ),
    *(part for part in ATTACKS.split("\n\n") if part.startswith("**")),
]


@cache
def file_of(name: str) -> Path:
    """A name without a folder is one of `tests/api/access`, or of one test file only."""
    if "/" in name:
        return PROJECT / name
    own = PROJECT / "tests" / "api" / "access" / name
    if own.exists():
        return own
    (path,) = (PROJECT / "tests").rglob(name)
    return path


def missing(claim: str) -> list[str]:
    """What the claim refers to and what is not there."""
    file, absent = None, []
    for match in REFERENCE.finditer(claim):
        if match["file"]:
            file = file_of(match["file"])
            if not file.is_file():
                absent.append(match["file"])
        test = match["own"] or match["test"]
        if test and (file is None or f"def {test}(" not in file.read_text()):
            absent.append(test)
    return absent


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim[:40])
def test_every_claim_names_its_tests(claim: str) -> None:
    shown_by = claim.rsplit("|", 2)[1] if claim.startswith("|") else claim
    assert REFERENCE.search(shown_by), "no test is named"
    assert missing(shown_by) == []


def test_a_test_that_is_not_there_is_seen() -> None:
    assert missing("`test_floods.py`: `test_nothing_of_the_kind`") == ["test_nothing_of_the_kind"]
    assert missing("`tests/api/test_nowhere.py`") == ["tests/api/test_nowhere.py"]
    assert len(CLAIMS) > 80


def test_no_claim_stands_twice() -> None:
    first_cells = [claim.split("|")[1] for claim in CLAIMS if claim.startswith("|")]
    assert len(first_cells) == len(set(first_cells))
