"""Reading compact tokens before anything in them is believed: size, shape, unique members, allowed headers."""

import json
import re
from typing import Any

from joserfc.util import urlsafe_b64decode

MAX_TOKEN_CHARACTERS = 8 * 1024
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


class InvalidToken(Exception):
    """The token opens nothing. Why is nobody's business."""


def check_shape(token: str) -> None:
    """Three parts in letters of base64url, and not too many of them. Raises InvalidToken."""
    if len(token) > MAX_TOKEN_CHARACTERS or not _COMPACT.fullmatch(token):
        raise InvalidToken


def unverified_part(token: str, part: int) -> dict[str, Any]:
    """The header (0) or the payload (1), unverified. Raises Refused, ValueError."""
    found = unique_json(urlsafe_b64decode(token.split(".")[part].encode()))
    if not isinstance(found, dict):
        raise InvalidToken
    return found


def unique_json(data: bytes) -> Any:
    """JSON in which no member occurs twice and no number is NaN or infinite. Raises ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a member occurs twice")
        return found

    try:
        return json.loads(data, object_pairs_hook=unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")
