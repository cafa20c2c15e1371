"""PromQL as text: literals that hold whatever is put into them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True, slots=True)
class Matcher:
    """`label operator value`, where the value is data and never syntax."""

    label: str
    value: str
    operator: str = "="

    def __str__(self) -> str:
        return f"{self.label}{self.operator}{literal(self.value)}"


def literal(text: str) -> str:
    """A string literal. What cannot stand in one as it is becomes an escape."""
    return f'"{"".join(_escaped(character) for character in text)}"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:  # half a character: no text that a store can hold
        return "\ufffd"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def selector(metric: str, matchers: Iterable[Matcher], range_: str = "") -> str:
    """A metric by name and labels; `range_` makes it a range vector."""
    inside = ",".join(map(str, matchers))
    return f"{metric}{{{inside}}}{f'[{range_}]' if range_ else ''}"
