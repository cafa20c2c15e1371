"""Lists of workloads as programs read them: JSON, YAML, CSV, names. Each format takes page after page."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from watchbill.cli.output.columns import TableColumn
from watchbill.cli.output.terminal import json_document, safe, yaml_document
from watchbill.workload_fields import EXPORT_COLUMNS

if TYPE_CHECKING:
    from watchbill.client import WorkloadDocument
    from watchbill.responses.contract import WorkloadResponse


class Writer(Protocol):
    def page(self, documents: "Iterable[WorkloadDocument]") -> Iterator[bytes]: ...

    def end(self, next_offset: int | None) -> bytes:
        """`next_offset`: where a limit cut the list."""
        ...


class JsonList:
    """`{"workloads": […]}` as the API has it, written page by page; `next` only where a limit cut it."""

    def __init__(self) -> None:
        self._is_first = True

    def page(self, documents: "Iterable[WorkloadDocument]") -> Iterator[bytes]:
        for document in documents:
            yield b'{\n  "workloads": [\n' if self._is_first else b",\n"
            self._is_first = False
            yield b"    " + json_document(document.raw).rstrip().replace(b"\n", b"\n    ")

    def end(self, next_offset: int | None) -> bytes:
        start = b'{\n  "workloads": [' if self._is_first else b"\n  "
        rest = b"" if next_offset is None else b',\n  "next": %d' % next_offset
        return start + b"]" + rest + b"\n}\n"


class YamlList:
    """The same as YAML."""

    def __init__(self) -> None:
        self._is_first = True

    def page(self, documents: "Iterable[WorkloadDocument]") -> Iterator[bytes]:
        for document in documents:
            yield b"workloads:\n" if self._is_first else b""
            self._is_first = False
            yield yaml_document([document.raw])

    def end(self, next_offset: int | None) -> bytes:
        start = b"workloads: []\n" if self._is_first else b""
        return start + (b"" if next_offset is None else b"next: %d\n" % next_offset)


class CsvList:
    """The API's export: its headers, units and empty cells, with all its columns or those named."""

    def __init__(self, columns: Sequence[TableColumn] | None, *, has_headers: bool) -> None:
        self._members: Mapping[str, tuple[str, ...]] = (
            EXPORT_COLUMNS
            if columns is None
            else {name: path for column in columns for name, path in column.members.items()}
        )
        self._header = [tuple(self._members)] if has_headers else []

    def page(self, documents: "Iterable[WorkloadDocument]") -> Iterator[bytes]:
        yield self._rows(self._cells(document.members()) for document in documents)

    def end(self, next_offset: int | None) -> bytes:
        return self._rows(())

    def _cells(self, members: dict[str, Any]) -> list[Any]:
        from watchbill.tabular import cell_at

        return [cell_at(members, path) for path in self._members.values()]

    def _rows(self, rows: Iterable[Sequence[Any]]) -> bytes:
        from watchbill.tabular import rows_as_csv

        header, self._header = self._header, []
        return rows_as_csv([*header, *rows])


NAMES: dict[str, Callable[["WorkloadResponse"], str]] = {
    "name": lambda workload: workload.name,
    "id": lambda workload: str(workload.id),
}


class NameList:
    """One name, or one id, a line."""

    def __init__(self, what: str) -> None:
        self._name = NAMES[what]

    def page(self, documents: "Iterable[WorkloadDocument]") -> Iterator[bytes]:
        for document in documents:
            yield safe(self._name(document.workload)).encode() + b"\n"

    def end(self, next_offset: int | None) -> bytes:
        return b""
