"""Where a list, an object or an indented block ends in a text that may be JSON, YAML or Python, and its values.

Every function takes time linear in the length of its text.
"""

import re
from collections.abc import Iterator

_MARK = re.compile(r"""\\\\|\\?["']|\\.|[\[\]{}]""", re.DOTALL)
_BLOCK = re.compile(r"(?:[|>][+-]?[0-9]?)?[ \t]{0,4}+\r?\n")
_KEY_PREFIX = re.compile(r"""[ \t]*+(?:-[ \t]{1,8}+)?["']?""")
_LINE = re.compile(r"([ \t]*+)(-[ \t])?([^\n]*+)\n?")
_LEAF = re.compile(
    r"""(\\?"[^"]*+"|'[^']*+'|[^\s,\[\]{}:"']++)(\s{0,8}+:(?!//))?""",
)
_WRITTEN_FILE = (
    r"\s{0,4}[\"']?[^\s|;&<>\"']{0,128}(?:token(?!i[sz])|passw|secret|credential"
    r"|api[_-]?key|netrc|pgpass|id_rsa)[\w.-]{0,32}+[\"']?(?=[\s|;&]|$)"
)
_MARK_OF_END = r"<<-?\s{0,4}[\"']?(?P<mark>\w{1,64}+)[\"']?"
_TO_END = r"[^\n]{0,256}\n)[\s\S]{1,10240}?(?=\n[ \t]{0,64}+(?P=mark)\b|\Z)"
HEREDOCS = (
    rf"(\b(?:cat\s{{0,4}}>{{1,2}}|tee(?:\s{{1,4}}-a)?){_WRITTEN_FILE}[^\n<]{{0,64}}{_MARK_OF_END}{_TO_END}",
    rf"(\bcat\s{{0,4}}{_MARK_OF_END}\s{{0,4}}>{{1,2}}{_WRITTEN_FILE}{_TO_END}",
)
"""`cat > ~/.cache/huggingface/token <<EOF`: all that is written there."""


def bracket_end(text: str, start: int) -> int:
    """Where the list or object that begins at `start` ends; 0 where none begins. Without an end, the text's."""
    if text[start] not in "[{":
        return 0
    depth = 0
    quote = ""
    for match in _MARK.finditer(text, start):
        mark = match[0]
        if mark[-1] in "\"'" and len(mark) <= 2:
            if not quote:
                quote = mark
            elif mark == quote:
                quote = ""
        elif quote or mark[0] == "\\":
            continue
        else:
            depth += 1 if mark in "[{" else -1
            if depth == 0:
                return match.end()
    return len(text)


def block_end(text: str, key_start: int, start: int) -> int:
    """Where the indented lines end that are the value of a YAML key; 0 where the value is no such block."""
    head = _BLOCK.match(text, start)
    if head is None:
        return 0
    line_start = text.rfind("\n", 0, key_start) + 1
    if _KEY_PREFIX.fullmatch(text, line_start, key_start) is None:
        return 0
    indent = key_start - line_start
    end = head.end()
    while end < len(text) and (line := _LINE.match(text, end)) is not None:
        is_item = line[2] is not None and len(line[1]) == indent
        if line[3] and len(line[1]) <= indent and not is_item:
            break
        end = line.end()
    if end == head.end():
        return 0
    return end - 1 if text[end - 1] == "\n" else end


def leaves(structure: str) -> Iterator[tuple[str, str]]:
    """The values of a list, object or block, each with the last key before it."""
    key = ""
    for match in _LEAF.finditer(structure):
        word = match[1].strip("\\\"'")
        if match[2]:
            key = word
        else:
            yield key, word
