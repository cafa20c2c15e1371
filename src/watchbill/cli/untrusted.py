"""Answers as a language model may read them: other people's text kept short, its hidden characters shown.

Nothing here makes text harmless to obey; it keeps it from hiding and from drowning what stands around it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from watchbill.cli.text import safe

MOST_CHARACTERS = 500
MOST_ITEMS = 100


def shown(value: Any) -> Any:
    """The same JSON, every text in it on one line and bounded, every list and object too."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        found = {_text(str(name)): shown(one) for name, one in list(value.items())[:MOST_ITEMS]}
        return found | _left_out(len(value))
    if isinstance(value, Sequence):
        return [*(shown(one) for one in value[:MOST_ITEMS]), *_left_out(len(value)).values()]
    return value


def _text(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return safe(text)
    return f"{safe(text[:MOST_CHARACTERS])} … ({len(text) - MOST_CHARACTERS} more characters)"


def _left_out(count: int) -> dict[str, str]:
    return {"…": f"{count - MOST_ITEMS} more are left out"} if count > MOST_ITEMS else {}
