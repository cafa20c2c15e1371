"""Exporters' pages: read as a reader of the whole format reads them, and never trusted."""

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from watchbill.agent.metrics.exposition import (
    INFRASTRUCTURE,
    ExpositionParser,
    Limit,
    LimitExceeded,
    ScrapeLimits,
    looks_like_metrics,
)

PAGE = r"""# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1",pod="a",namespace="n}{",note="say \"hi\", \\ and\nmore"} 42
DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-2"} 1e2 1700000000000
DCGM_FI_DEV_GPU_UTIL_OTHER{gpu="1"} 7
# TYPE plain gauge
plain 3.5
# TYPE odd gauge
odd{a="b",} NaN
odd{a="c"} +Inf
odd { a = "d" } -4
"""


def test_the_same_samples_as_the_reference_reader() -> None:
    wanted = {"DCGM_FI_DEV_GPU_UTIL", "plain", "odd"}
    ours = [
        (sample.name, sample.labels, sample.value)
        for sample in ExpositionParser(wanted).samples(PAGE.encode(), INFRASTRUCTURE)
    ]
    theirs = [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(PAGE)
        for sample in family.samples
        if sample.name in wanted and sample.value - sample.value == 0
    ]
    assert sorted(ours, key=str) == sorted(theirs, key=str)
    assert len(ours) == 4


def test_what_is_no_sample_is_passed_over() -> None:
    page = b'plain\nplain abc\nplain{a="unclosed 3\nplain{} 1\n\xff\xfe plain 2\nplain 4'
    assert [
        sample.value for sample in ExpositionParser(["plain"]).samples(page, INFRASTRUCTURE)
    ] == [1.0, 4.0]


def test_values_that_no_sum_would_survive_are_passed_over() -> None:
    """Two of 1e308 sum up to infinity, which JSON cannot say: the server refused the whole round."""
    page = b"plain 1e308\nplain -1e19\nplain nan\nplain -inf\nplain 1e18\nplain " + b"9" * 65
    assert [
        sample.value for sample in ExpositionParser(["plain"]).samples(page, INFRASTRUCTURE)
    ] == [1e18]


def test_pages_that_are_none() -> None:
    assert looks_like_metrics(PAGE.encode())
    assert looks_like_metrics(b"")
    for page in (b"<html>log in</html>", b'{"error": 1}', b"\x1f\x8b\x08"):
        assert not looks_like_metrics(page)


def test_a_long_run_of_quotes_takes_no_time() -> None:
    page = b'plain{a="' + b'\\"' * 200_000 + b"\nplain 1\n"
    assert [
        sample.value for sample in ExpositionParser(["plain"]).samples(page, INFRASTRUCTURE)
    ] == [1.0]


def sampled(page: str, **limits: int) -> int:
    allowed = scrape_limits(**limits)
    return len(ExpositionParser(["plain"]).samples(page.encode(), allowed))


def scrape_limits(**limits: int) -> ScrapeLimits:
    return replace(ScrapeLimits(body_bytes=10**6, samples=10, labels=2), **limits)


@pytest.mark.parametrize(
    ("page", "limit"),
    [
        ("plain 1\n" * 11, Limit.SAMPLES),
        ('plain{a="1",b="2",c="3"} 1', Limit.LABELS),
        (f'plain{{{"a" * 9}="1"}} 1', Limit.LABEL_NAME),
        (f'plain{{a="{"é" * 9}"}} 1', Limit.LABEL_VALUE),
    ],
)
def test_a_page_beyond_a_limit_is_refused_as_a_whole(page: str, limit: Limit) -> None:
    with pytest.raises(LimitExceeded) as caught:
        sampled(page, label_name_length=8, label_value_length=8)
    assert caught.value.limit is limit
    assert limit in caught.value.message


def test_a_page_at_its_limits_is_read() -> None:
    page = 'plain{a="12345678",b="2"} 1\n' * 10 + "other 1\n" * 100
    assert sampled(page, label_value_length=8) == 10


def test_unclosed_labels_do_not_make_every_line_read_the_whole_page() -> None:
    """A line's labels end with the line: otherwise half a megabyte of these takes an hour."""
    assert sampled("plain{\n" * 80_000 + "plain 1\n") == 1


def test_a_block_of_labels_without_a_label_is_neither_searched_nor_kept() -> None:
    """Each letter of it could begin a name: that must not be tried from each of them."""
    page = b"DCGM_FI_DEV_GPU_UTIL{" + b"a" * 2_000_000 + b"} 1\n"
    with pytest.raises(LimitExceeded):
        list(ExpositionParser(frozenset({"DCGM_FI_DEV_GPU_UTIL"})).samples(page, INFRASTRUCTURE))
    short = b"DCGM_FI_DEV_GPU_UTIL{" + b"a" * 60_000 + b"} 1\n"
    list(ExpositionParser(frozenset({"DCGM_FI_DEV_GPU_UTIL"})).samples(short, INFRASTRUCTURE))
