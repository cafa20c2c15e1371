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
    """A string literal. What cannot stand in one as it is becomes an escape of its bytes."""
    return f'"{"".join(_escaped(character) for character in text)}"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))


def selector(metric: str, matchers: Iterable[Matcher], range_: str = "") -> str:
    """A metric by name and labels; `range_` makes it a range vector."""
    inside = ",".join(map(str, matchers))
    return f"{metric}{{{inside}}}{f'[{range_}]' if range_ else ''}"
