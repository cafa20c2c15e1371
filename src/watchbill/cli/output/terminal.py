"""Where a command writes: data on stdout, notes on stderr, colour on terminals only.

Text that others wrote is made fit for a terminal here: on one line, in its place, every character seen.
Tables are as wide as their widest cell, on a terminal at most as wide as it is: longer cells are cut with `…`.
"""

import codecs
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from watchbill.errors import Invalid

if TYPE_CHECKING:
    from watchbill.responses.access import Credential

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


_DECODER = codecs.getincrementaldecoder("utf-8")(errors="replace")
_RESET = "\x1b[0m"
_COLOURS = {
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
    "blue": "\x1b[34m",
    "dim": "\x1b[2m",
    "bold": "\x1b[1m",
}
PHASE_COLOURS = {
    "Running": "green",
    "Completed": "dim",
    "Failed": "red",
    "Degraded": "red",
    "Pending": "yellow",
    "Creating": "blue",
    "Initializing": "blue",
    "Resuming": "blue",
    "Updating": "blue",
    "Stopped": "dim",
    "Stopping": "dim",
    "Deleting": "dim",
    "Terminating": "dim",
    "Unknown": "red",
    "connected": "green",
    "waiting": "yellow",
    "degraded": "yellow",
    "disconnected": "red",
}


@dataclass(frozen=True, slots=True)
class Terminal:
    """`print` takes text that is safe already; `note` makes its text safe."""

    is_coloured: bool = False
    columns: int | None = None
    """The width that tables fit; None = any."""

    def coloured(self, text: str, colour: str | None) -> str:
        if not self.is_coloured or colour is None:
            return text
        return f"{_COLOURS[colour]}{text}{_RESET}"

    def print(self, text: str) -> None:
        print(text)

    def write(self, data: bytes) -> None:
        """JSON, YAML, CSV: as they are into files and pipes, with what is hidden made visible to people."""
        if sys.stdout.isatty():
            sys.stdout.write(visible(_DECODER.decode(data)))
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)

    @property
    def shows_progress(self) -> bool:
        """Where a person watches while the data goes elsewhere."""
        return sys.stderr.isatty() and not sys.stdout.isatty()

    @contextmanager
    def progress(self, label: str, length: int) -> Iterator[Callable[[int], None]]:
        """A bar on stderr of so many steps, moved on by what is called; none where nobody watches."""
        if not self.shows_progress:
            yield lambda steps: None
            return
        import typer

        with typer.progressbar(length=length, label=label, file=sys.stderr, show_pos=True) as bar:
            yield bar.update

    @contextmanager
    def secret(self, file: Path | None) -> Iterator[Callable[[bytes], object]]:
        """Where a secret goes that is shown only once: into the file, whole or not at all, else to stdout.

        The file is begun before the secret is made, so that none is made that cannot be kept.
        """
        if file is None:
            yield self.write
            return
        from watchbill.files import open_private

        if file.exists():
            raise Invalid(f"{file} exists already.", details="name a new file, or remove that one")
        with open_private(file) as opened:
            yield opened.write

    def note(self, text: str) -> None:
        print(safe(text), file=sys.stderr)


def terminal(environ: Mapping[str, str], *, no_color: bool, is_wide: bool = False) -> Terminal:
    """Colour only where a person looks at a terminal that knows it, and nobody asked for none."""
    import shutil

    is_wanted = not no_color and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    is_watched = sys.stdout.isatty()
    return Terminal(
        is_coloured=is_wanted and is_watched,
        columns=shutil.get_terminal_size().columns if is_watched and not is_wide else None,
    )


_GAP, _NARROW_GAP = "   ", "  "
_CUT = "…"
_FLOORS = ((999, 12, 999), (20, 8, 999), (16, 7, 5), (12, 6, 4), (4, 4, 4))
"""Down to how many cells columns are cut, one step after the other, until the table fits: the first column,
which names the row; the others; and those with short values, which lose of their header first."""
_SHORT = 8
"""Ages, counts and most phases: cut, they tell nothing."""


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    colour: str | None = None


Row = Sequence[Cell | str]


def table_lines(
    headers: Sequence[str] | None, rows: Sequence[Row], terminal: Terminal, *, indent: str = ""
) -> list[str]:
    """One line a row; `headers` None leaves their line out."""
    cells = [[_cell(text) for text in row] for row in rows]
    values = _widths(cells)
    if headers is not None:
        cells.insert(0, [Cell(header, "bold") for header in headers])
    widths, gap = _widths(cells), _GAP
    if terminal.columns is not None:
        gap, widths = _fitted(widths, values or widths, terminal.columns - len(indent))
    return [indent + _line(row, widths, gap, terminal) for row in cells]


def fitting_columns(
    headers: Sequence[str], rows: Sequence[Row], terminal: Terminal, droppable: Sequence[str]
) -> list[str]:
    """The headers that a table keeps on a narrow terminal: those of `droppable` are left out, one after the
    other, until nothing has to be cut."""
    kept = list(headers)
    if terminal.columns is None or not rows:
        return kept
    cells = [[Cell(header) for header in headers], *([_cell(text) for text in row] for row in rows)]
    widths = dict(zip(headers, _widths(cells), strict=True))
    for header in droppable:
        gaps = len(_NARROW_GAP) * (len(kept) - 1)
        if sum(widths[name] for name in kept) + gaps <= terminal.columns:
            break
        kept = [name for name in kept if name != header]
    return kept


def _widths(cells: Sequence[Sequence[Cell]]) -> list[int]:
    return [max(width(cell.text) for cell in column) for column in zip(*cells, strict=True)]


def _fitted(widths: list[int], values: list[int], columns: int) -> tuple[str, list[int]]:
    """The widths, narrowed until they and the gaps fit, the widest first; as near as the floors let it.

    `values`: how wide they are without the header.
    """
    if sum(widths) + len(_GAP) * (len(widths) - 1) <= columns:
        return _GAP, widths
    fitted = list(widths)
    room = columns - len(_NARROW_GAP) * (len(widths) - 1)
    is_short = [value <= _SHORT for value in values]
    for first, other, short in _FLOORS:
        floors = [
            max(short, value) if narrow else other
            for narrow, value in zip(is_short, values, strict=True)
        ]
        floors[0] = first if len(floors) > 1 else other
        if (first, other, short) == _FLOORS[-1]:
            floors = [short] * len(floors)
        while sum(fitted) > room:
            over = [position for position, floor in enumerate(floors) if fitted[position] > floor]
            if not over:
                break
            fitted[max(over, key=lambda position: fitted[position])] -= 1
    return _NARROW_GAP, fitted


def _cut(text: str, cells: int) -> str:
    """The start of the text, already safe, that fits so many cells."""
    if width(text) <= cells:
        return text
    kept, used = [], 0
    for character in text:
        used += _character_width(character)
        if used > cells - 1:
            break
        kept.append(character)
    return "".join(kept) + _CUT


def _cell(value: Cell | str) -> Cell:
    cell = value if isinstance(value, Cell) else Cell(value)
    return Cell(safe(cell.text) or "-", cell.colour)


def _line(row: Sequence[Cell], widths: Sequence[int], gap: str, terminal: Terminal) -> str:
    shown = []
    for position, (cell, cells_wide) in enumerate(zip(row, widths, strict=True)):
        text = _cut(cell.text, cells_wide)
        is_last = position == len(row) - 1
        padding = "" if is_last else padded(text, cells_wide)[len(text) :] + gap
        shown.append(terminal.coloured(text, cell.colour) + padding)
    return "".join(shown)


def json_document(document: Any) -> bytes:
    """A struct, JSON as it came, or what both are made of."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def credential_document(url: str, credential: "Credential") -> bytes:
    """As `--credentials` and WATCHBILL_CREDENTIALS read it."""
    import msgspec

    return json_document({"url": url} | msgspec.to_builtins(credential))


def yaml_document(document: Any) -> bytes:
    """Characters that nobody would see are written as escapes."""
    import msgspec
    import yaml

    plain = msgspec.json.decode(msgspec.json.encode(document))

    def dumped(*, plainly: bool) -> str:
        text: str = yaml.safe_dump(
            plain, sort_keys=False, allow_unicode=plainly, default_flow_style=False
        )
        return text

    text = dumped(plainly=True)
    is_plain = all(safe(line.lstrip()) == line.lstrip() for line in text.splitlines())
    return (text if is_plain else dumped(plainly=False)).encode()


def table_document(output: str, document: Any, items: "type | Sequence[str]" = ()) -> bytes:
    """`items`: what the document's one list consists of, as for `csv_document`."""
    return csv_document(document, items) if output == "csv" else DOCUMENTS[output](document)


def csv_document(document: Any, items: "type | Sequence[str]" = ()) -> bytes:
    """A column for each member, named by its path. A document that is one list has a row for each of its items,
    any other is one row.

    `items`: the struct, or the names of the members, of the items; so that a list without any has its header,
    and the columns are the same whatever the items state.
    """
    import msgspec

    from watchbill.tabular import cell_of, rows_as_csv

    plain = msgspec.json.decode(msgspec.json.encode(document))
    members = list(plain.values())
    is_list = len(members) == 1 and isinstance(members[0], list)
    rows = [dict(_members(item)) for item in (members[0] if is_list else [plain])]
    stated = list(_struct_members(items) if isinstance(items, type) else items)
    groups = {name[:end] for name in stated for end, at in enumerate(name) if at == "."}
    named = [name for row in rows for name, value in row.items() if value or name not in groups]
    names = list(dict.fromkeys([*stated, *named]))
    return rows_as_csv([names, *([cell_of(row.get(name)) for name in names] for row in rows)])


def _struct_members(struct: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """As `_members`; of an object of any members nothing."""
    import msgspec

    for field in msgspec.structs.fields(struct):
        at = (*path, field.encode_name)
        kinds = _plain_types(field.type)
        structs = [
            kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        ]
        if structs:
            yield from _struct_members(structs[0], at)
        elif not any(get_origin(kind) is dict for kind in kinds):
            yield ".".join(at)


def _plain_types(annotation: Any) -> list[Any]:
    """The alternatives of a type, without what only annotates them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain_types(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for each in get_args(annotation) for kind in _plain_types(each)]
    return [annotation]


def _members(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """All that is no object, by its path."""
    if not isinstance(value, dict):
        yield ".".join(path), value
        return
    for name, member in value.items():
        yield from _members(member, (*path, name))


class AnswerFormat(StrEnum):
    """How to print one object."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class TableFormat(StrEnum):
    """How to print what programs may read as a table, too."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


DOCUMENTS: Mapping[str, Callable[[Any], bytes]] = {"json": json_document, "yaml": yaml_document}
"""By the word of `--output`."""
TABLE_DOCUMENTS = frozenset({*DOCUMENTS, "csv"})
"""The words that `table_document` knows, where no columns of its own are made for CSV."""
