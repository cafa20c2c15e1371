"""From a query string to typed values, by the contract's own parameter objects. No parameter is named here.

Unknown parameters are ignored. Everything that cannot be understood is Invalid, by name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import UUID

from watchbill.errors import Invalid, NotFound
from watchbill.query import parse_instant

Value = str | int | bool | datetime | UUID | tuple[str, ...] | None
Values = Mapping[str, Any]

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_INTEGER = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_UUID = re.compile(
    r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}", re.ASCII
)
_FORMAT_BOUNDS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_SHOWN_CHARACTERS = 60
FIRST_YEAR = 1970
END_OF_YEARS = 3000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parameter:
    """One rule, read from the contract."""

    name: str
    is_in_path: bool
    is_required: bool
    default: Value
    read_one: Callable[[str], Any]
    is_array: bool
    is_split: bool
    """An array whose items are separated by commas. Otherwise every item may itself hold commas, and
    whoever knows its grammar splits it."""
    is_unique: bool
    is_empty_absent: bool
    """Sent without a value counts as not sent."""
    min_items: int
    max_items: int | None


def read_parameter(parameter: dict[str, Any], schema: dict[str, Any]) -> Parameter:
    """The rule of one parameter object, whose schema is already resolved."""
    name, is_array = parameter["name"], schema.get("type") == "array"
    item = schema["items"] if is_array else schema
    is_free_text = item.get("type") == "string" and not item.keys() & {"enum", "format"}
    is_split = is_array and "pattern" not in item
    return Parameter(
        name=name,
        is_in_path=parameter["in"] == "path",
        is_required=parameter.get("required", False),
        default=() if is_array else schema.get("default"),
        read_one=_reader(name, item),
        is_array=is_array,
        is_split=is_split,
        is_unique=schema.get("uniqueItems", False),
        is_empty_absent=is_array or is_free_text,
        min_items=schema.get("minItems", 0),
        max_items=schema.get("maxItems") if is_split else None,
    )


@lru_cache(maxsize=512)
def parse_query(parameters: tuple[Parameter, ...], query_string: bytes) -> Values:
    """Every query parameter's value, its default where it was not sent. Raises Invalid. Whoever watches
    something asks the same again and again."""
    sent = decode_pairs(query_string)
    return {
        parameter.name: _value(parameter, sent.get(parameter.name, []))
        for parameter in parameters
        if not parameter.is_in_path
    }


def parse_path(parameters: tuple[Parameter, ...], segments: Mapping[str, str]) -> dict[str, Any]:
    """The path's values. A malformed one names nothing that exists: raises NotFound."""
    try:
        return {
            parameter.name: parameter.read_one(segments[parameter.name])
            for parameter in parameters
            if parameter.is_in_path
        }
    except Invalid as error:
        raise NotFound("Not found.", details=error.message) from error


def decode_pairs(query_string: bytes) -> dict[str, list[str]]:
    """Names and values as text, in the order sent. Raises Invalid for bad escapes and bad UTF-8."""
    pairs: dict[str, list[str]] = {}
    for pair in query_string.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            pairs.setdefault(_text(name), []).append(_text(value))
    return pairs


def check_years(**times: datetime | None) -> None:
    """Raises Invalid near the ends of the calendar, where a step, a week or a month further is no date."""
    for name, at in times.items():
        if at is not None and at.year >= END_OF_YEARS:
            raise Invalid(f"{name} must lie before the year {END_OF_YEARS}.")
        if at is not None and at.year < FIRST_YEAR:
            raise Invalid(f"{name} must not lie before the year {FIRST_YEAR}.")


def quoted(text: str) -> str:
    """Caller's text as it may stand in a message: short, on one line, ASCII."""
    return text[:_SHOWN_CHARACTERS].encode("unicode_escape").decode("ascii")


def _text(raw: bytes) -> str:
    if _BAD_ESCAPE.search(raw):
        raise Invalid("The query string contains a '%' without two hexadecimal digits after it.")
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid("The query string is not UTF-8.") from error


def _value(parameter: Parameter, sent: list[str]) -> Any:
    if len(sent) > 1 and not parameter.is_array:
        raise Invalid(f"{parameter.name} was sent {len(sent)} times; it allows one value.")
    if parameter.is_empty_absent:
        sent = [value for value in sent if value]
    if not sent:
        if parameter.is_required:
            raise Invalid(f"{parameter.name} is required.")
        return parameter.default
    if not parameter.is_array:
        return parameter.read_one(sent[0])
    if not parameter.is_split:
        return tuple(sent)
    return _items(parameter, ",".join(sent).split(","))


def _items(parameter: Parameter, items: list[str]) -> tuple[Any, ...]:
    name, most = parameter.name, parameter.max_items
    if most is not None and len(items) > most:
        raise Invalid(f"{name} allows at most {most} items, got {len(items)}.")
    if len(items) < parameter.min_items:
        raise Invalid(f"{name} requires at least {parameter.min_items} items.")
    values = tuple(parameter.read_one(item) for item in items)
    if parameter.is_unique and len(set(values)) < len(values):
        raise Invalid(f"{name} contains an item twice.")
    return values


def _reader(name: str, schema: dict[str, Any]) -> Callable[[str], Any]:
    """How one value of this schema is read. Refuses to start on a schema that nothing here can read."""
    key = schema.get("format", schema["type"]) if schema["type"] == "string" else schema["type"]
    if "enum" in schema:
        key = "enum"
    make = _READERS.get(key)
    if make is None:
        raise RuntimeError(f"the parameter {name} has a schema that is not supported: {schema}")
    return make(name, schema)


def _enum(name: str, schema: dict[str, Any]) -> Callable[[str], str]:
    known: frozenset[str] = frozenset(schema["enum"])

    def read(text: str) -> str:
        if text not in known:
            raise Invalid(
                f"{name} does not allow '{quoted(text)}'.",
                details=f"Allowed: {', '.join(schema['enum'])}.",
            )
        return text

    return read


def _integer(name: str, schema: dict[str, Any]) -> Callable[[str], int]:
    lowest, highest = _FORMAT_BOUNDS.get(schema.get("format", ""), _FORMAT_BOUNDS["int64"])
    lowest = max(lowest, schema.get("minimum", lowest))
    highest = min(highest, schema.get("maximum", highest))

    def read(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not lowest <= int(text) <= highest:
            raise Invalid(
                f"{name} must be an integer from {lowest} to {highest}, got '{quoted(text)}'."
            )
        return int(text)

    return read


def _boolean(name: str, _: dict[str, Any]) -> Callable[[str], bool]:
    def read(text: str) -> bool:
        if text not in ("true", "false"):
            raise Invalid(f"{name} must be true or false, got '{quoted(text)}'.")
        return text == "true"

    return read


def _uuid(name: str, _: dict[str, Any]) -> Callable[[str], UUID]:
    def read(text: str) -> UUID:
        if not _UUID.fullmatch(text):
            raise Invalid(f"{name} must be a UUID, got '{quoted(text)}'.")
        return UUID(text)

    return read


def _instant(name: str, _: dict[str, Any]) -> Callable[[str], datetime]:
    return lambda text: parse_instant(name, text)


def _string(_: str, __: dict[str, Any]) -> Callable[[str], str]:
    return str


_READERS: dict[str, Callable[[str, dict[str, Any]], Callable[[str], Any]]] = {
    "enum": _enum,
    "integer": _integer,
    "boolean": _boolean,
    "uuid": _uuid,
    "date-time": _instant,
    "string": _string,
}
