"""Text that strangers chose, made fit for a terminal: on one line, in its place, every character seen."""

import unicodedata

_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cn", "Cs", "Zl", "Zp"})
"""Controls (ESC and C1 among them), formats (bidi, zero width, tags), unassigned, lone surrogates, breaks."""
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Drawn as nothing, though their categories say otherwise."""
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MAX_MARKS = 3
"""More accents than this on one letter climb into the rows above."""


def safe(text: object) -> str:
    """`text` on one line without anything that moves the cursor, hides or reorders; what was there shows.

    A second space in a row becomes `␣`, so that no text can pretend to be two columns.
    """
    written = str(text)
    if written.isascii() and written.isprintable() and "  " not in written:
        return written
    shown: list[str] = []
    marks = _MAX_MARKS  # a mark at the start would sit on what stands before the text
    before = ""
    for character in written:
        is_mark = unicodedata.category(character) in ("Mn", "Me")
        marks = marks + 1 if is_mark else 0
        is_hidden = _is_hidden(character) or (is_mark and marks > _MAX_MARKS)
        if is_hidden:
            shown.append(_escape(character))
        else:
            shown.append("␣" if character == before == " " else character)
        before = character
    return "".join(shown)


def visible(text: str) -> str:
    """Lines of data, as `safe` but with their line ends and their spaces."""
    return "".join(
        _escape(character) if _is_hidden(character) and character not in "\r\n" else character
        for character in text
    )


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    return (
        category in _ESCAPED_CATEGORIES
        or character in _BLANKS
        or (category == "Zs" and character != " ")
        or _is_selector(ord(character))
    )


def _is_selector(code: int) -> bool:
    return 0xFE00 <= code <= 0xFE0F or 0x180B <= code <= 0x180F or 0xE0100 <= code <= 0xE01EF


def _escape(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def width(text: str) -> int:
    """The cells that `text`, already safe, takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me") or 0x1160 <= ord(character) <= 0x11FF:
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def padded(text: str, cells: int) -> str:
    return text + " " * (cells - width(text))
