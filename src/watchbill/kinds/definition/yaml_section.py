"""YAML with places: a definition file as sections that can say where they stand when they are wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from watchbill.errors import Invalid
from watchbill.files import read_text

TEXT_KEYS = frozenset(
    {
        "group",
        "kind",
        "category",
        "workloadClass",
        "distributedFramework",
        "hook",
        "name",
        "label",
        "objects",
        "roles",
        "rolesFrom",
        "without",
        "optional",
        "runsToEnd",
        "withPods",
    }
)
"""Keys whose scalar is plain text; every other scalar of a map is an expression."""


class Scalar(NamedTuple):
    """One value: its key, its text, and the lines of the file that it fills (`first_line` is the first)."""

    key: str
    value: str
    first_line: int
    lines: tuple[str, ...]
    is_text_only: bool

    def line_at(self, offset: int) -> int:
        """The line of the file on which the character `offset` of the value stands.

        YAML folds lines, so only what is no space stands in both alike.
        """
        before = len("".join(self.value[:offset].split()))
        for number, line in enumerate(self.lines):
            before -= len("".join(line.split()))
            if before < 0:
                return self.first_line + number
        return self.first_line + max(0, len(self.lines) - 1)


class Section:
    """One map of a file."""

    def __init__(self, node: yaml.MappingNode, file: str) -> None:
        self._file = file
        self._node = node
        self._values: dict[str, yaml.Node] = {}
        self._lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise self.error_at(line, "a key must be plain text")
            if key.value in self._values:
                raise self.error_at(line, f"{key.value!r} is given twice")
            self._values[key.value] = value
            self._lines[key.value] = line

    def error(self, name: str | None, reason: str) -> Invalid:
        line = self._lines.get(name or "", self._node.start_mark.line + 1)
        return self.error_at(line, f"{name}: {reason}" if name else reason)

    def error_at(self, line: int, reason: str) -> Invalid:
        return Invalid(f"{self._file}:{line}: {reason}")

    def allow(self, names: tuple[str, ...]) -> None:
        for name in self._values:
            if name not in names:
                raise self.error(name, f"unknown key; known are: {', '.join(sorted(names))}")

    def has(self, name: str) -> bool:
        return name in self._values

    def document(self) -> Any:
        """Everything below it as plain values. Raises Invalid where tags promise what is not there."""
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_document(self._node)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise self.error(None, f"not plain YAML values: {error}") from error
        finally:
            loader.dispose()

    def names(self) -> tuple[str, ...]:
        return tuple(self._values)

    def is_scalar(self, name: str) -> bool:
        return isinstance(self._values.get(name), yaml.ScalarNode)

    def text(self, name: str) -> str:
        """The scalar under `name` as it is written, "" where there is none."""
        node = self._values.get(name)
        if node is None:
            return ""
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(
                name, "must be a single value; quote an expression that begins with { or ["
            )
        return str(node.value)

    def required(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise self.error(None, f"{name!r} is missing")
        return value

    def flag(self, name: str) -> bool:
        written = self.text(name)
        if written not in {"", "true", "false"}:
            raise self.error(name, "must be true or false")
        return written == "true"

    def texts(self, name: str) -> tuple[str, ...]:
        node = self._values.get(name)
        if node is None:
            return ()
        if not isinstance(node, yaml.SequenceNode) or not all(
            isinstance(item, yaml.ScalarNode) for item in node.value
        ):
            raise self.error(name, "must be a list of names")
        return tuple(str(item.value) for item in node.value)

    def section(self, name: str) -> "Section | None":
        node = self._values.get(name)
        if node is None:
            return None
        if not isinstance(node, yaml.MappingNode):
            raise self.error(name, "must be a map")
        return Section(node, self._file)

    def sections(self, name: str) -> tuple["Section", ...]:
        """The maps in the list under `name`; a single map is a list of one."""
        node = self._values.get(name)
        if node is None:
            return ()
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        maps = [item for item in items if isinstance(item, yaml.MappingNode)]
        if len(maps) < len(items):
            raise self.error(name, "must be a list of maps")
        return tuple(Section(item, self._file) for item in maps)

    def scalars(self) -> Iterator[Scalar]:
        """Every value of every map at any depth, in the order of the file."""
        yield from _scalars(self._node)


def _scalars(node: yaml.Node, *, is_labels: bool = False) -> Iterator[Scalar]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(value, yaml.ScalarNode):
                yield _scalar(key.value, value, is_text=is_labels or key.value in TEXT_KEYS)
            else:
                yield from _scalars(value, is_labels=key.value == "pods")
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _scalars(item)


def _scalar(key: str, node: yaml.ScalarNode, *, is_text: bool) -> Scalar:
    start, end = node.start_mark, node.end_mark
    lines = str(start.buffer or "")[start.pointer : end.pointer].rstrip().split("\n")
    first = start.line + 1
    if node.style in (">", "|"):
        first, lines = first + 1, lines[1:]
    elif node.style in ("'", '"'):
        lines = [line.strip("'\"") for line in lines]
    return Scalar(key, node.value, first, tuple(lines), is_text)


def read_section(path: Path) -> Section:
    """The one map that a file holds. Raises Invalid."""
    return section_of(read_text(path), str(path))


def section_of(text: str, file: str) -> Section:
    """The one map that a text holds; `file` is what errors call it. Raises Invalid."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Invalid(f"{file}:{line}: {_plain(error)}") from error
    except yaml.YAMLError as error:
        raise Invalid(f"{file}:1: {error}") from error
    if node is None:
        raise Invalid(f"{file}:1: the file is empty")
    if not isinstance(node, yaml.MappingNode):
        raise Invalid(f"{file}:1: a definition must be one mapping")
    return Section(node, file)


def _plain(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    if "another document" in problem:
        return "a second document begins here; one file holds one definition"
    if "\\t" in problem:
        return "tab character; YAML indents with spaces"
    return (
        f"this is not YAML: {problem or 'it cannot be read'} – an expression that begins with a quote, or holds"
        " `: ` or ` #`, needs `>-` before it on a line of its own, or quotes around it"
    )
