"""Lists of workloads as programs read them: JSON, YAML, CSV, names. Each format takes page after page."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from watchbill.cli.output.columns import JSON, TableColumn, value_at
from watchbill.cli.output.terminal import json_document, safe, yaml_document


class Writer(Protocol):
    def page(self, workloads: Iterable[JSON]) -> Iterator[bytes]: ...

    def end(self, next_offset: int | None) -> bytes:
        """`next_offset`: where a limit cut the list."""
        ...


class JsonList:
    """`{"workloads": […]}` as the API has it, written page by page; `next` only where a limit cut it."""

    def __init__(self) -> None:
        self._is_first = True

    def page(self, workloads: Iterable[JSON]) -> Iterator[bytes]:
        for workload in workloads:
            yield b'{\n  "workloads": [\n' if self._is_first else b",\n"
            self._is_first = False
            yield b"    " + json_document(workload).rstrip().replace(b"\n", b"\n    ")

    def end(self, next_offset: int | None) -> bytes:
        start = b'{\n  "workloads": [' if self._is_first else b"\n  "
        rest = b"" if next_offset is None else b',\n  "next": %d' % next_offset
        return start + b"]" + rest + b"\n}\n"


class YamlList:
    """The same as YAML."""

    def __init__(self) -> None:
        self._is_first = True

    def page(self, workloads: Iterable[JSON]) -> Iterator[bytes]:
        for workload in workloads:
            yield b"workloads:\n" if self._is_first else b""
            self._is_first = False
            yield yaml_document([workload])

    def end(self, next_offset: int | None) -> bytes:
        start = b"workloads: []\n" if self._is_first else b""
        return start + (b"" if next_offset is None else b"next: %d\n" % next_offset)


class CsvList:
    """RFC 4180; the columns' members under the API's names; no text that a spreadsheet runs."""

    def __init__(self, columns: Sequence[TableColumn], *, has_headers: bool) -> None:
        self._members = {name: path for one in columns for name, path in one.members.items()}
        self._header = [tuple(self._members)] if has_headers else []

    def page(self, workloads: Iterable[JSON]) -> Iterator[bytes]:
        yield self._written(
            [_csv_cell(value_at(workload, path)) for path in self._members.values()]
            for workload in workloads
        )

    def end(self, next_offset: int | None) -> bytes:
        return self._written(())

    def _written(self, rows: Iterable[Sequence[Any]]) -> bytes:
        from watchbill.tabular import rows_as_csv

        header, self._header = self._header, []
        return rows_as_csv([*header, *rows])


class WordList:
    """One name, or one id, a line."""

    def __init__(self, member_name: str) -> None:
        self._member = member_name

    def page(self, workloads: Iterable[JSON]) -> Iterator[bytes]:
        for workload in workloads:
            yield safe(workload[self._member]).encode() + b"\n"

    def end(self, next_offset: int | None) -> bytes:
        return b""


def _csv_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(str(one) for one in value) if isinstance(value, list) else value
