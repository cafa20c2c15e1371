"""No untrusted text moves the cursor, hides, reorders, or passes for another row or column."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchbill.cli.commands.why import pending_lines
from watchbill.cli.output.terminal import (
    Cell,
    Terminal,
    fitting_columns,
    padded,
    safe,
    table_lines,
    visible,
    width,
)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("plain-name", "plain-name"),
        ("Ünï — 名前", "Ünï — 名前"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
        ("\x9b31m", "\\x9b31m"),
        ("\x1b]8;;http://x\x07y\x1b]8;;\x07", "\\x1b]8;;http://x\\x07y\\x1b]8;;\\x07"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("a\u2066b\u2069", "a\\u2066b\\u2069"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("line\u2028break", "line\\u2028break"),
        ("soft\u00adhyphen", "soft\\xadhyphen"),
        ("nbsp\u00a0wide\u3000", "nbsp\\xa0wide\\u3000"),
        ("filler\u3164", "filler\\u3164"),
        ("selector\ufe0f", "selector\\ufe0f"),
        ("lone \ud800", "lone \\ud800"),
        ("\u0301first", "\\u0301first"),
        ("e\u0301", "e\u0301"),
        ("z" + "\u0301" * 5, "z" + "\u0301" * 3 + "\\u0301" * 2),
        ("one   Running", "one ␣␣Running"),
        ("del\x7f", "del\\x7f"),
        ("nul\x00", "nul\\x00"),
    ],
)
def test_hostile_text_is_shown_for_what_it_is(hostile: str, shown: str) -> None:
    assert safe(hostile) == shown


@given(st.text(max_size=60))
def test_safe_text_has_one_line_and_nothing_hidden(text: str) -> None:
    result = safe(text)
    assert len(result.splitlines()) <= 1
    assert "  " not in result
    assert not any(
        unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in result
    )
    assert safe(result) == result


@given(st.text(max_size=200))
def test_visible_data_keeps_its_lines_and_no_control(text: str) -> None:
    result = visible(text)
    assert result.count("\n") == text.count("\n")
    assert not any(
        unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in "\r\n"
        for character in result
    )


@pytest.mark.parametrize(
    ("text", "cells"), [("abc", 3), ("名前", 4), ("e\u0301", 1), ("ＡＢ", 4), ("→", 1), ("🚢", 2)]
)
def test_width_is_what_a_terminal_draws(text: str, cells: int) -> None:
    assert width(text) == cells
    assert width(padded(text, 6)) == 6


def test_columns_line_up_whatever_is_in_them() -> None:
    rows = [["名前", "x"], ["plain", "y"], ["bad\nname", "z"], ["", "w"]]
    assert table_lines(["NAME", "B"], rows, Terminal()) == [
        "NAME        B",
        "名前        x",
        "plain       y",
        "bad\\nname   z",
        "-           w",
    ]


def test_colour_is_outside_the_padding_and_never_in_plain_output() -> None:
    rows = [[Cell("Failed", "red"), "x"], [Cell("Ok"), "y"]]
    assert table_lines(None, rows, Terminal(is_coloured=True)) == [
        "\x1b[31mFailed\x1b[0m   x",
        "Ok       y",
    ]
    assert table_lines(None, rows, Terminal())[0] == "Failed   x"


def test_a_reason_that_does_not_fit_stands_below_its_line() -> None:
    rows = [["llama-sft-1", "vision", "Too few GPUs are free in pool a100"], ["b", "c", "No quota"]]
    headers = ["NAME", "PROJECT", "REASON"]
    assert list(pending_lines(headers, rows, Terminal(columns=30))) == [
        "NAME          PROJECT",
        "llama-sft-1   vision",
        "    Too few GPUs are free in …",
        "b             c",
        "    No quota",
    ]
    assert list(pending_lines(None, rows[1:], Terminal(columns=30))) == ["b   c   No quota"]
    assert list(pending_lines(None, rows, Terminal())) == table_lines(None, rows, Terminal())


def test_a_narrow_terminal_leaves_columns_out_before_it_cuts() -> None:
    """The cells take 10, 3, 4 and 4, and the gaps between them 2: 27, without C 21, without D 15."""
    headers, rows = ["NAME", "B", "C", "D"], [["a" * 10, "bbb", "cccc", "dddd"]]
    kept = [
        fitting_columns(headers, rows, Terminal(columns=size), ("C", "D")) for size in (27, 21, 20)
    ]
    assert kept == [headers, ["NAME", "B", "D"], ["NAME", "B"]]
    assert fitting_columns(headers, rows, Terminal(), ("C", "D")) == headers
