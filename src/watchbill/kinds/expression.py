"""What is wrong with an expression: told at its line of the definition file, in words that help.

jq counts lines of the program that all expressions of a kind are joined into; nobody has seen that.
"""

import re

import jq

from watchbill.errors import Invalid
from watchbill.kinds.program import prelude
from watchbill.kinds.section import Scalar, Section

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_IMPURE = re.compile(
    r"(?<![.\w$])(?:env|inputs?|input_\w+|now|localtime|debug|stderr|halt\w*|import|include)\b(?!\s*:)"
    r"|\$ENV"
)
_PLACE = re.compile(r" at <top-level>, line ([0-9]{1,9}), column ([0-9]{1,9}):?")
_WORD = re.compile(r"([A-Za-z_]\w*)/0 is not defined")
_QUOTED = re.compile(r"unexpected (?:IDENT|KEYWORD|QQSTRING_START|LITERAL)")
_CLOSING = re.compile(r"'[\])}]'")
_SHOWN = 30


def impurity(expression: str) -> str:
    """What in it reaches beyond its object, "" where nothing does."""
    found = _IMPURE.search(_STRING.sub('""', expression))
    return found[0] if found else ""


def culprit(top: Section, conditions: str, reason: str) -> Invalid:
    """The error for a program that does not compile, at the expression that is to blame."""
    head = f"{prelude(conditions)}(null | "
    for scalar in top.scalars():
        if scalar.is_text_only:
            continue
        try:
            jq.compile(f"{head}{scalar.value}\n)")
        except ValueError as error:
            return _told(top, scalar, _first_line(str(error)), head)
    return top.error(None, f"jq: {_first_line(reason)}")


def _told(top: Section, scalar: Scalar, message: str, head: str) -> Invalid:
    place = _PLACE.search(message)
    said = _PLACE.sub("", message).rstrip(": ").removeprefix("syntax error, ")
    offset = 0
    if place is not None:
        offset = _offset(f"{head}{scalar.value}\n)", int(place[1]), int(place[2])) - len(head)
    if offset >= len(scalar.value):
        expected = said.partition("expecting ")[2] or "more"
        closing = _CLOSING.findall(expected)
        expected = closing[-1] if closing else expected
        line = scalar.line_at(len(scalar.value))
        return top.error_at(
            line, f"{scalar.key}: jq: the expression ends too early: {expected} is missing"
        )
    offset = max(0, offset)
    near = " ".join(scalar.value[offset : offset + _SHOWN].split())
    return top.error_at(
        scalar.line_at(offset), f"{scalar.key}: jq: {said}, at `{near}`{_hint(said)}"
    )


def _offset(program: str, line: int, column: int) -> int:
    """Where in the program jq's line and column are, both from 1."""
    before = program.split("\n")[: line - 1]
    return sum(len(one) + 1 for one in before) + column - 1


def _hint(said: str) -> str:
    word = _WORD.search(said)
    if word:
        return f' – as plain text it needs quotes of its own: "{word[1]}"; as a member, a dot: .{word[1]}'
    if said.startswith("$"):
        return " – $root is all that is given"
    if _QUOTED.search(said):
        return " – plain text needs quotes of its own, as in message: '\"Paused by its owner.\"'"
    return ""


def _first_line(message: str) -> str:
    return message.partition("\n")[0].removeprefix("jq: error: ")
