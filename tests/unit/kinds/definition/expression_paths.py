"""Which members of an object a jq expression reads: a parser and an evaluation over types instead of values.

Only as much of jq as definitions use. A value is a list of nodes: places in a type, things that the expression
makes itself, words, or `UNKNOWN`. A member that no place of a value has is noted with its path.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<number>[0-9]+(?:\.[0-9]+)?)'
    r"|(?P<member>\.[A-Za-z_]\w*)|(?P<name>\$?[A-Za-z_]\w*)"
    r"|(?P<sign>//=|\|=|\+=|-=|==|!=|<=|>=|//|\?|[][(){}.,;:|=<>+*/%-]))"
)
_OF_EVERY_KIND = {"apiVersion": "string", "kind": "string", "metadata": "any"}
_OPEN = ("any", "object", "PodSpec")
_LEVELS = (
    ("|",),
    (",",),
    ("//",),
    ("=", "|=", "+=", "-=", "//="),
    ("or",),
    ("and",),
    ("==", "!=", "<", "<=", ">", ">="),
    ("+", "-"),
    ("*", "/", "%"),
)


@dataclass(frozen=True)
class Place:
    """Somewhere in the kind's type. `path` as `.spec.tasks[].name`."""

    path: str
    type: Any


@dataclass(frozen=True)
class Made:
    """An object that the expression builds; `rest` stands for all of its other members."""

    members: Mapping[str, "Value"]
    rest: "Value" = ()


@dataclass(frozen=True)
class Many:
    """A list or map that the expression builds."""

    items: "Value"


@dataclass(frozen=True)
class Word:
    """A literal; None = some text or number that is not known."""

    value: Any = None


@dataclass(frozen=True)
class Unknown:
    """What no type describes; whatever is read of it is fine."""


UNKNOWN: "Value" = (Unknown(),)
SOMETHING: "Value" = (Word(),)
Value = tuple[Place | Made | Many | Word | Unknown, ...]
Tree = tuple[Any, ...]


class Parser:
    """Text to tree: `(operation, operands...)`."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            assert match, f"not read: {text[position:]!r}"
            assert match.lastgroup
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()
        self._next = 0

    def parse(self) -> Tree:
        tree = self._pipe()
        assert self._next == len(self._tokens), f"left over: {self._tokens[self._next :]}"
        return tree

    def _peek(self) -> str:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else ""

    def _take(self, expected: str = "") -> str:
        token = self._tokens[self._next][1]
        assert expected in ("", token), f"{expected!r} expected, {token!r} read"
        self._next += 1
        return token

    def _pipe(self) -> Tree:
        if self._peek() == "def":
            self._take()
            name = self._take()
            self._take(":")
            body = self._pipe()
            self._take(";")
            return ("def", name, body, self._pipe())
        return self._level(0)

    def _level(self, level: int) -> Tree:
        if level == len(_LEVELS):
            return self._postfix()
        left = self._level(level + 1)
        while self._peek() in _LEVELS[level]:
            sign = self._take()
            right = self._pipe() if sign == "|" else self._level(level + 1)
            left = (sign, left, right)
        return left

    def _postfix(self) -> Tree:
        tree = self._primary()
        while True:
            match self._peek():
                case "[":
                    self._take()
                    is_each = self._peek() == "]"
                    tree = ("each", tree) if is_each else ("index", tree, self._pipe())
                    self._take("]")
                case "?":
                    self._take()
                case "." if self._tokens[self._next + 1][1] == "[":
                    self._take()
                case "as":
                    self._take()
                    name = self._take()
                    self._take("|")
                    return ("as", tree, name, self._pipe())
                case member if member.startswith(".") and len(member) > 1:
                    tree = ("member", tree, self._take()[1:])
                case _:
                    return tree

    def _primary(self) -> Tree:
        kind, token = self._tokens[self._next]
        self._next += 1
        if kind == "text":
            return ("text", token[1:-1])
        if kind == "number":
            return ("word", token)
        if kind == "member":
            return ("member", ("self",), token[1:])
        if kind == "name":
            return self._named(token)
        inner: Tree
        match token:
            case ".":
                return ("self",)
            case "-":
                return self._postfix()
            case "(":
                inner = self._pipe()
                self._take(")")
                return inner
            case "[":
                inner = ("empty",) if self._peek() == "]" else self._pipe()
                self._take("]")
                return ("list", inner)
            case "{":
                return self._object()
        raise AssertionError(f"not read: {token}")

    def _named(self, token: str) -> Tree:
        if token.startswith("$"):
            return ("variable", token)
        if token == "if":
            return self._condition()
        if token == "try":
            tree = self._postfix()
            if self._peek() == "catch":
                self._take()
                return (",", tree, self._postfix())
            return tree
        arguments = []
        if self._peek() == "(":
            self._take()
            arguments.append(self._pipe())
            while self._peek() == ";":
                self._take()
                arguments.append(self._pipe())
            self._take(")")
        return ("call", token, *arguments)

    def _condition(self) -> Tree:
        condition = self._pipe()
        self._take("then")
        positive = self._pipe()
        match self._take():
            case "elif":
                return ("if", condition, positive, self._condition())
            case "else":
                negative = self._pipe()
                self._take("end")
                return ("if", condition, positive, negative)
        return ("if", condition, positive, ("self",))

    def _object(self) -> Tree:
        members: list[tuple[Any, Tree]] = []
        while self._peek() != "}":
            key: Any
            if self._peek() == "(":
                self._take()
                key = self._pipe()
                self._take(")")
            else:
                key = self._take().strip('"')
            if self._peek() == ":":
                self._take()
                value = self._level(2)
            else:
                value = ("variable", key) if key.startswith("$") else ("member", ("self",), key)
            members.append((key, value))
            if self._peek() == ",":
                self._take()
        self._take("}")
        return ("object", members)


@dataclass
class Reading:
    """One expression over one type: `missing` is what it reads and the type does not have."""

    root: Any
    missing: set[str] = field(default_factory=set)
    variables: dict[str, Value] = field(default_factory=dict)
    functions: dict[str, Tree] = field(default_factory=dict)

    def start(self) -> Value:
        value: Value = (Place("", self.root | _OF_EVERY_KIND),)
        self.variables["$root"] = value
        return value

    def run(self, expression: str, value: Value) -> Value:
        return self.value(Parser(expression).parse(), value)

    def value(self, tree: Tree, value: Value) -> Value:
        operation, *operands = tree
        method: Callable[..., Value] | None = _OPERATIONS.get(operation)
        if method is not None:
            return method(self, value, *operands)
        left, right = (self.value(operand, value) for operand in operands)
        if operation in ("==", "!="):
            self._compared(left, right)
        if operation in (",", "//"):
            return left + right
        if operation in ("+", "*"):
            return _together(left, right)
        return SOMETHING

    def member(self, value: Value, name: str) -> Value:
        """What the value has under the name; missing where it is a type that lacks it."""
        results = [_member(node, name) for node in value]
        if value and all(result is None for result in results):
            self.missing |= {f"{node.path}.{name}" for node in value if isinstance(node, Place)}
        return tuple(row for result in results for row in result or ())

    def _compared(self, left: Value, right: Value) -> None:
        for places, words in ((left, right), (right, left)):
            known = [word.value for word in words if isinstance(word, Word) and word.value]
            for place in places:
                if isinstance(place, Place) and isinstance(place.type, str) and ":" in place.type:
                    allowed = place.type.partition(":")[2].split("|")
                    self.missing |= {f"{place.path} = {word}" for word in known} - {
                        f"{place.path} = {word}" for word in allowed
                    }

    def _assigned(self, value: Value, target: Tree, content: Tree, *, is_new: bool) -> Value:
        result = self.value(content, value)
        if target[0] == "member" and target[1] == ("self",):
            if not is_new:
                result = result + self.value(target, value)
            return (Made({target[2]: result}, value),)
        self.value(target, value)
        return value

    def _object(self, value: Value, members: list[tuple[Any, Tree]]) -> Value:
        made: dict[str, Value] = {}
        for key, content in members:
            result = self.value(content, value)
            if isinstance(key, str):
                made[key] = result
            else:
                self.value(key, value)
                return (Many(result), *_of(made))
        return (Made(made),)

    def _as(self, value: Value, content: Tree, name: str, body: Tree) -> Value:
        self.variables[name] = self.value(content, value)
        return self.value(body, value)

    def _def(self, value: Value, name: str, body: Tree, rest: Tree) -> Value:
        self.functions[name] = body
        return self.value(rest, value)

    def _if(self, value: Value, condition: Tree, positive: Tree, negative: Tree) -> Value:
        self.value(condition, value)
        return self.value(positive, value) + self.value(negative, value)

    def _index(self, value: Value, content: Tree, key: Tree) -> Value:
        inner = self.value(content, value)
        words = [
            node.value for node in self.value(key, value) if isinstance(node, Word) and node.value
        ]
        if words and not all(str(word).isdigit() for word in words):
            return tuple(node for word in words for node in self.member(inner, word))
        return tuple(_items(inner))

    def _text(self, value: Value, text: str) -> Value:
        for inner in re.findall(r"\\\(([^()]*(?:\([^()]*\))?[^()]*)\)", text):
            self.run(inner.replace('\\"', '"'), value)
        return (Word(None if "\\(" in text else text),)

    def _call(self, value: Value, name: str, *arguments: Tree) -> Value:
        if name in self.functions:
            return self.value(self.functions[name], value)
        if name in _CONDITIONS:
            return self._condition(_CONDITIONS[name])
        items = tuple(_items(value))
        subject = items if name in _OVER_ITEMS and len(arguments) == 1 else value
        results = []
        for argument in arguments:
            results.append(self.value(argument, subject))
            subject = results[-1] if name in ("any", "all") else subject
        if name == "IN":
            self._compared(value, tuple(word for result in results for word in result))
        if name in _OF_ARGUMENT:
            return results[-1]
        result = _RESULTS.get(name)
        return result(value, items, results) if result else SOMETHING

    def _condition(self, members: tuple[str, ...]) -> Value:
        every = (Place("", self.root),)
        conditions = tuple(_items(self.member(self.member(every, "status"), "conditions")))
        for member in members:
            self.member(conditions, member)
        return self.member(conditions, members[-1]) if members[-1] != "type" else conditions


_OF_ARGUMENT = ("limit", "first")
_SELECTED = ("select", "objects", "strings", "arrays", "values", "del", "with_entries", "sort_by")
_OF_ITEMS = ("add", "min", "max", "last")
_OPAQUE = ("getpath", "fromjson", "capture", "from_entries")
_RESULTS: dict[str, Callable[[Value, Value, list[Value]], Value]] = {
    **dict.fromkeys(("empty", "null"), lambda value, items, results: ()),
    **dict.fromkeys(_SELECTED, lambda value, items, results: value),
    **dict.fromkeys(("map", "map_values"), lambda value, items, results: (Many(results[-1]),)),
    **dict.fromkeys(_OF_ITEMS, lambda value, items, results: items),
    **dict.fromkeys(_OPAQUE, lambda value, items, results: UNKNOWN),
    "to_entries": lambda value, items, results: (
        Many((Made({"key": SOMETHING, "value": items}),)),
    ),
    "group_by": lambda value, items, results: (Many((Many(items),)),),
}
_OVER_ITEMS = ("map", "map_values", "all", "any", "group_by")
_CONDITIONS = {
    "condition": ("type",),
    "is_true": ("type", "status"),
    "is_false": ("type", "status"),
    "reason": ("type", "reason"),
    "message": ("type", "message"),
    "since": ("type", "lastTransitionTime"),
}
_OPERATIONS: dict[str, Callable[..., Value]] = {
    "self": lambda _, value: value,
    "empty": lambda _, value: (),
    "word": lambda _, value, word: (Word(word),),
    "text": Reading._text,
    "variable": lambda reading, value, name: reading.variables[name],
    "member": lambda reading, value, inner, name: reading.member(reading.value(inner, value), name),
    "each": lambda reading, value, inner: tuple(_items(reading.value(inner, value))),
    "index": Reading._index,
    "list": lambda reading, value, inner: (Many(reading.value(inner, value)),),
    "object": Reading._object,
    "|": lambda reading, value, left, right: reading.value(right, reading.value(left, value)),
    "as": Reading._as,
    "def": Reading._def,
    "if": Reading._if,
    "call": Reading._call,
    "=": lambda reading, value, left, right: reading._assigned(value, left, right, is_new=True),
    **dict.fromkeys(
        ("|=", "+=", "-=", "//="),
        lambda reading, value, left, right: reading._assigned(value, left, right, is_new=False),
    ),
}


def _of(made: dict[str, Value]) -> Value:
    return (Made(made),) if made else ()


def _member(node: Any, name: str) -> Value | None:
    """None where the node cannot have it."""
    match node:
        case Made(members, rest):
            return members[name] if name in members else _of_all(rest, name)
        case Many(items):
            return items
        case Unknown():
            return UNKNOWN
        case Place(path, type_) if isinstance(type_, dict):
            if name in type_:
                return (Place(f"{path}.{name}", type_[name]),)
            return (Place(f"{path}{{}}", type_["{}"]),) if "{}" in type_ else None
        case Place(_, type_) if type_ in _OPEN:
            return UNKNOWN
    return None


def _of_all(value: Value, name: str) -> Value | None:
    results = [_member(node, name) for node in value]
    if results and all(result is None for result in results):
        return None
    return tuple(row for result in results for row in result or ())


def _items(value: Value) -> Iterator[Any]:
    """What `.[]` yields."""
    for node in value:
        match node:
            case Made(members, rest):
                yield from (inner for member in members.values() for inner in member)
                yield from _items(rest)
            case Many(items):
                yield from items
            case Unknown():
                yield node
            case Place(path, type_) if isinstance(type_, dict):
                for name, inner in type_.items():
                    yield Place(path + (name if name in ("[]", "{}") else f".{name}"), inner)
            case Place(_, type_) if type_ in _OPEN:
                yield Unknown()


def _together(left: Value, right: Value) -> Value:
    """Objects with the members of both; lists with the items of both; else a number or a text."""
    made = [node for node in right if isinstance(node, Made)]
    if made:
        return (Made({key: item for node in made for key, item in node.members.items()}, left),)
    kept = tuple(node for node in left + right if not isinstance(node, Word))
    return kept or SOMETHING
