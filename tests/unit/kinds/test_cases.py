"""Small workloads of many frameworks, one for each way in which a record can be wrong (`cases/`)."""

import pytest

from tests.unit.kinds.cases.reading import Case, cases, differences


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_the_record_says_what_is_so(case: Case) -> None:
    assert differences(case) == {}
