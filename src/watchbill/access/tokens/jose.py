"""Reading compact tokens before anything in them is trusted: size, shape, unique members, allowed headers."""

import json
import re
from typing import Any

from joserfc.util import urlsafe_b64decode

MAX_TOKEN_CHARACTERS = 8 * 1024
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


class InvalidToken(Exception):
    """The token opens nothing. Why is nobody's business."""


def check_shape(token: str) -> None:
    """Three parts in base64url's one spelling of their bytes, and not too long. Raises InvalidToken."""
    if len(token) > MAX_TOKEN_CHARACTERS or not _COMPACT.fullmatch(token):
        raise InvalidToken
    if not all(_is_canonical(part) for part in token.split(".")):
        raise InvalidToken


def _is_canonical(part: str) -> bool:
    """Whether the bits of the last letter that stand for no byte are 0: else one token has many texts."""
    spare_bits = {0: 0, 2: 4, 3: 2}.get(len(part) % 4)
    return spare_bits is not None and _ALPHABET.index(part[-1]) % (1 << spare_bits) == 0


def unverified_part(token: str, part: int) -> dict[str, Any]:
    """The header (0) or the payload (1), unverified. Raises InvalidToken, ValueError."""
    members = unique_json(urlsafe_b64decode(token.split(".")[part].encode()))
    if not isinstance(members, dict):
        raise InvalidToken
    return members


def unique_json(data: bytes) -> Any:
    """JSON in which no member occurs twice and no number is NaN or infinite. Raises ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            raise ValueError("a member occurs twice")
        return members

    try:
        return json.loads(data, object_pairs_hook=unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
