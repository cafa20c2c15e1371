"""Lives of every kind, in the form of the frameworks' own types, come out as they are meant."""

import pytest

from tests.unit.kinds.golden.reading import Case, agrees, cases, seen
from tests.unit.kinds.lives import definitions


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_record(case: Case) -> None:
    found = seen(case)
    assert agrees(found, case) or found == case.expected


def test_every_kind_has_a_life() -> None:
    told = {
        (case.objects.root["apiVersion"].rpartition("/")[0], case.expected["type"])
        for case in cases()
    }
    defined = {(found.group, found.kind) for found in definitions().watched() if found.is_whole}
    assert told >= defined
