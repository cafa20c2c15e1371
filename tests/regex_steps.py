"""How much work a regular expression does, in steps instead of seconds.

`Counting` stands in for a compiled pattern: the real one answers, and an interpreter of the same parse tree
counts how many characters are compared, given back and compared again on the way.
"""

import re
from collections.abc import Callable, Iterator
from re import _constants as code  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

Node = tuple[Any, Any]
Rest = Callable[[int], int | None]


def _beginnings(nodes: list[Node]) -> frozenset[str] | None:
    """The characters that a sequence can begin with; None where that is not plain to see."""
    operation, argument = nodes[0] if nodes else (None, None)
    if operation is code.LITERAL:
        return frozenset({chr(argument)})
    if operation is code.SUBPATTERN:
        return _beginnings(list(argument[3]))
    if operation is code.BRANCH:
        each = [_beginnings(list(branch)) for branch in argument[1]]
        return None if None in each else frozenset().union(*(part for part in each if part))
    return None


class Counting:
    """A pattern that adds to `steps` what each of its searches costs."""

    steps = 0

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._real = pattern
        self._tree = list(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE))
        self._beginnings: dict[int, frozenset[str] | None] = {}
        self._ignores_case = bool(pattern.flags & re.IGNORECASE)
        self._is_ascii = bool(pattern.flags & re.ASCII)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)

        def call(*args: Any) -> Any:
            text = args[1] if name == "sub" else args[0]
            start = args[1] if len(args) > 1 and name != "sub" else 0
            self._count(text, start, once=name in ("search", "match", "fullmatch"),
                        anchored=name in ("match", "fullmatch"))  # fmt: skip
            return method(*args)

        return call

    def _count(self, text: str, start: int, *, once: bool, anchored: bool) -> None:
        while start <= len(text):
            end = self._sequence(self._tree, 0, text, start, lambda reached: reached)
            if anchored or (once and end is not None):
                return
            start = end if end is not None and end > start else start + 1

    def _sequence(
        self, nodes: list[Node], index: int, text: str, at: int, rest: Rest
    ) -> int | None:
        Counting.steps += 1
        if index == len(nodes):
            return rest(at)

        def after(reached: int) -> int | None:
            return self._sequence(nodes, index + 1, text, reached, rest)

        return self._node(nodes[index], text, at, after)

    def _node(self, node: Node, text: str, at: int, rest: Rest) -> int | None:
        operation, argument = node
        if operation in (code.MAX_REPEAT, code.MIN_REPEAT, code.POSSESSIVE_REPEAT):
            return self._repeat(operation, argument, text, at, rest)
        if operation is code.BRANCH:
            Counting.steps += len(argument[1])
            likely = (b for b in argument[1] if self._may_begin(b, text[at : at + 1]))
            ends = (self._sequence(list(branch), 0, text, at, rest) for branch in likely)
            return next((end for end in ends if end is not None), None)
        if operation is code.SUBPATTERN:
            return self._sequence(list(argument[3]), 0, text, at, rest)
        if operation in (code.ASSERT, code.ASSERT_NOT):
            return rest(at) if self._looks(operation, argument, text, at) else None
        if operation is code.AT:
            return rest(at) if self._stands(argument, text, at) else None
        return rest(at + 1) if at < len(text) and self._accepts(node, text[at]) else None

    def _may_begin(self, branch: Any, character: str) -> bool:
        if id(branch) not in self._beginnings:
            self._beginnings[id(branch)] = _beginnings(list(branch))
        beginnings = self._beginnings[id(branch)]
        return self._ignores_case or beginnings is None or character in beginnings

    def _repeat(self, operation: Any, argument: Any, text: str, at: int, rest: Rest) -> int | None:
        low, high, inner = argument
        ends = self._ends(list(inner), int(high), text, at)
        if operation is code.MIN_REPEAT:
            for number, end in enumerate(ends):
                if number >= low and (reached := rest(end)) is not None:
                    return reached
            return None
        reached_ends = list(ends)
        choices = reached_ends[low:][::-1]
        if operation is code.POSSESSIVE_REPEAT:
            choices = choices[:1]
        return next((r for end in choices if (r := rest(end)) is not None), None)

    def _ends(self, inner: list[Node], high: int, text: str, at: int) -> Iterator[int]:
        """Where 0, 1, 2 … repetitions end, each of them as it matches first."""
        yield at
        for _ in range(high):
            end = self._sequence(inner, 0, text, at, lambda reached: reached)
            if end is None or end == at:
                return
            at = end
            yield at

    def _looks(self, operation: Any, argument: Any, text: str, at: int) -> bool:
        direction, inner = argument
        start = at if direction > 0 else at - inner.getwidth()[0]
        result = start >= 0 and self._sequence(list(inner), 0, text, start, lambda r: r) is not None
        return result == (operation is code.ASSERT)

    def _stands(self, argument: Any, text: str, at: int) -> bool:
        if argument in (code.AT_BOUNDARY, code.AT_NON_BOUNDARY):
            sides = [bool(re.match(r"\w", c)) for c in (text[at - 1 : at], text[at : at + 1])]
            return (sides[0] != sides[1]) == (argument is code.AT_BOUNDARY)
        is_start = argument in (code.AT_BEGINNING, code.AT_BEGINNING_STRING)
        return at == 0 if is_start else at == len(text)

    def _accepts(self, node: Node, character: str) -> bool:
        operation, argument = node
        if self._ignores_case and operation in (code.LITERAL, code.NOT_LITERAL):
            return (chr(argument).lower() == character.lower()) == (operation is code.LITERAL)
        if operation is code.IN:
            is_negated = argument[0][0] is code.NEGATE
            members = argument[1:] if is_negated else argument
            variants = (
                {character, character.lower(), character.upper()}
                if self._ignores_case
                else {character}
            )
            return any(self._accepts(m, v) for m in members for v in variants) != is_negated
        if operation is code.RANGE:
            return bool(argument[0] <= ord(character[0]) <= argument[1])
        if operation is code.CATEGORY:
            return self._is_of(argument, character)
        return operation is code.ANY or (ord(character[0]) == argument) == (
            operation is code.LITERAL
        )

    def _is_of(self, category: Any, character: str) -> bool:
        letter, is_negated = {
            code.CATEGORY_DIGIT: ("d", False), code.CATEGORY_NOT_DIGIT: ("d", True),
            code.CATEGORY_SPACE: ("s", False), code.CATEGORY_NOT_SPACE: ("s", True),
            code.CATEGORY_WORD: ("w", False), code.CATEGORY_NOT_WORD: ("w", True),
        }[category]  # fmt: skip
        flags = re.ASCII if self._is_ascii else 0
        return bool(re.match(rf"\{letter}", character, flags)) != is_negated
