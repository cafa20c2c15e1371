"""Twice the text takes twice the work, counted in steps: whatever somebody writes into a manifest."""

import re
from itertools import pairwise, product
from types import ModuleType
from typing import Any

import pytest

from tests.regex_steps import Counting
from watchbill.kinds.derivation import (
    redact,
    redact_commands,
    redact_names,
    redact_structures,
)
from watchbill.kinds.derivation.presentation import ALL_VARIABLES_LENGTH, presented_template
from watchbill.kinds.objects import json_access
from watchbill.kinds.objects.settings import Redaction
from watchbill.kinds.objects.template import read_template
from watchbill.kinds.pending import kueue, no_capacity, scheduler

REDACTING = (redact, redact_commands, redact_names, redact_structures)
READING = (kueue, no_capacity, scheduler)
PIECES = [
    "a",
    "key:=",
    "key: ",
    '"',
    "'",
    "\\",
    "{",
    "\n- ",
    "<a>",
    "http://a:",
    "@",
    "-u ",
    "Zx9",
    "eyJ.",
    "key=$(",
    "key('",
    "\\\n",
    "echo a|",
    '"password":true,',
    '"default":"x',
    "BUNDLE_A",
    "authorization: basic ",
]
LENGTH = 600
"""Above every bound of a repetition, so that what is bounded has reached its bound."""


def _count(monkeypatch: pytest.MonkeyPatch, modules: tuple[ModuleType, ...]) -> None:
    def counting(value: Any) -> Any:
        return Counting(value) if isinstance(value, re.Pattern) else value

    for module in modules:
        for name, value in list(vars(module).items()):
            if isinstance(value, re.Pattern):
                monkeypatch.setattr(module, name, Counting(value))
            elif name.isupper() and isinstance(value, tuple) and value:
                monkeypatch.setattr(module, name, tuple(counting(item) for item in value))


def _steps(text: str) -> int:
    before = Counting.steps
    redact._redact(text)
    return Counting.steps - before


@pytest.mark.parametrize(("first", "second"), list(pairwise(PIECES)))
def test_twice_the_text_takes_twice_the_work(
    first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _count(monkeypatch, REDACTING)
    text = (first + second) * LENGTH
    once, twice = _steps(text[:LENGTH]), _steps(text[: 2 * LENGTH])
    assert twice < 2.6 * once


def test_a_search_that_gives_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = Counting(re.compile(r'"[^"]*x'))
    Counting.steps = 0
    pattern.findall('"a' * 200)
    once = Counting.steps
    Counting(re.compile(r"a*b")).findall("a" * 200)
    square = Counting.steps - once
    Counting(re.compile(r"a*b")).findall("a" * 400)
    assert Counting.steps - once - square > 3.5 * square


def test_no_more_of_a_command_or_of_variables_is_worked_on_than_a_multiple_of_what_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worked: list[int] = []
    work = redact._redact
    monkeypatch.setattr(redact, "_redact", lambda text: worked.append(len(text)) or work(text))
    variables = [{"name": f"V{number}", "value": f"{number} " * 50_000} for number in range(400)]
    container = {
        "image": "x",
        "command": [f"{number} " * 60_000 for number in range(40)],
        "args": [f"{number}b " * 60_000 for number in range(40)],
        "env": variables,
    }
    template = read_template({"spec": {"containers": [container]}})
    presented = presented_template(template, Redaction.DEFAULT)
    assert sum(worked) <= 2 * redact.MAX_TEXT + 2 * ALL_VARIABLES_LENGTH
    assert presented.truncated == ("command", "arguments", "environmentVariables")


def test_a_message_is_cut_before_it_is_read() -> None:
    assert len(json_access.message_of({"message": "x" * 10**6})) == json_access.MESSAGE_LENGTH
    assert json_access.message_of({"message": ["x"]}) == ""


def test_a_long_text_is_cut_between_words() -> None:
    token = "Zx9Kq2vLm8Rt4Yp7Wn3Bd6Hs"
    text = "a " * (redact.MAX_TEXT // 2 - 5) + token + " tail"
    shown = redact.redact_text(text, Redaction.DEFAULT)
    assert "Zx9" not in shown
    assert shown.endswith("…")


@pytest.mark.parametrize("module", READING, ids=lambda module: module.__name__.rpartition(".")[2])
def test_messages_are_read_in_linear_work(module: ModuleType) -> None:
    pieces = [
        "0/1 nodes are available: ",
        "1 a, ",
        "Insufficient x",
        "preemption: ",
        "queue ",
        "(",
        "a",
    ]
    patterns = [value for value in vars(module).values() if isinstance(value, re.Pattern)]
    assert patterns
    for pattern, (first, second) in product(patterns, pairwise(pieces)):
        counting, text = Counting(pattern), (first + second) * LENGTH
        sizes = [text[:LENGTH], text[: 2 * LENGTH]]
        steps = []
        for size in sizes:
            before = Counting.steps
            counting.findall(size)
            steps.append(Counting.steps - before)
        assert steps[1] < 2.6 * steps[0] + 100, (pattern.pattern, first, second, steps)


@pytest.mark.parametrize("mark", [" ", ",", '"', "x"])
def test_an_argument_is_cut_between_values(mark: str) -> None:
    token = "ghp_Zx9Kq2vLm8Rt4Yp7Wn3Bd6HsZx9Kq2vLm8Rt"
    for shift in range(0, 40, 3):
        filler = ("a" * 40 + mark) * 400
        argument = filler[: redact.MAX_TEXT - shift] + mark + token
        shown = redact.redact_arguments(["run", argument], Redaction.DEFAULT)
        assert "ghp_" not in "".join(shown)
        assert "Zx9K" not in redact.redact_text(argument, Redaction.DEFAULT)


@pytest.mark.parametrize(
    "text",
    [
        "password:" + " " * 30 + "hunter2xyz",
        "password" + " " * 20 + "= hunter2xyz",
        "serve --password \\\n    hunter2xyz",
        "serve --api-key\t\\\r\n  hunter2xyz",
    ],
)
def test_blanks_and_continued_lines_hide_no_pair(text: str) -> None:
    assert "hunter2" not in redact.redact_text(text, Redaction.DEFAULT)
