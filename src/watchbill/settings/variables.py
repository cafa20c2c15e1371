"""One environment variable: its type, its range, how it is read and how the documentation describes it.

Each setting stands in one place: its type, its range, its variable and what it is for are on its field. What is
not understood stops the start, naming the setting and what it may be.
"""

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from watchbill.errors import Invalid


@dataclass(frozen=True, slots=True)
class Setting:
    """What stands beside a field's type: its environment variable and, in a phrase, what it is for."""

    variable: str
    purpose: str


Days = Annotated[int, Meta(ge=1, le=36_500)]
Lifetime = Annotated[int, Meta(ge=60, le=10 * 366 * 86_400)]
Port = Annotated[int, Meta(ge=0, le=65_535)]


def settings_of(owner: type) -> Iterator[tuple[dataclasses.Field[Any], Any, Setting]]:
    hints = get_type_hints(owner, include_extras=True)
    for spec in dataclasses.fields(owner):
        for extra in getattr(hints[spec.name], "__metadata__", ()):
            if isinstance(extra, Setting):
                yield spec, hints[spec.name], extra


def from_variables(owner: type, environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        spec.name: _value(setting.variable, hint, environ[setting.variable])
        for spec, hint, setting in settings_of(owner)
        if setting.variable in environ
        and not (environ[setting.variable] == "" and _plain_type(hint) in (str, Path))
    }


def from_flags(owner: type, overrides: Mapping[str, object]) -> dict[str, Any]:
    """Numbers from flags keep to the same ranges; everything else is passed on as it is."""
    hints = {spec.name: hint for spec, hint, _ in settings_of(owner)}
    return {
        name: _value(f"--{name.replace('_', '-')}", hints[name], str(value))
        if name in hints and isinstance(value, int | float) and not isinstance(value, bool)
        else value
        for name, value in overrides.items()
        if value is not None
    }


def _value(source: str, hint: Any, text: str) -> Any:
    """Raises Invalid, naming where it comes from and what it may be."""
    plain = _plain_type(hint)
    if plain is Path:
        return Path(text)
    if get_origin(plain) in (tuple, frozenset):
        return get_origin(plain)(item.strip() for item in text.split(",") if item.strip())
    try:
        value = msgspec.convert(text.strip(), _with_bounds(hint), strict=False)
    except msgspec.ValidationError as error:
        is_link = text.startswith("tcp://")
        raise Invalid(
            f"{source} must be {words_for(hint)}, got '{text[:80]}'.",
            details="Kubernetes sets it beside a Service of that name: use enableServiceLinks: false."
            if is_link
            else None,
        ) from error
    if isinstance(value, float) and value != value:
        raise Invalid(f"{source} must be {words_for(hint)}, got '{text[:80]}'.")
    return value


def _arms(hint: Any) -> Iterator[Any]:
    """The type itself without annotations and None."""
    if get_origin(hint) is Annotated:
        yield from _arms(get_args(hint)[0])
    elif get_origin(hint) in (Union, types.UnionType):
        for arm in get_args(hint):
            yield from _arms(arm)
    elif hint is not type(None):
        yield hint


def _plain_type(hint: Any) -> Any:
    return next(_arms(hint))


def _bounds(hint: Any) -> Meta | None:
    """The range, wherever among nested annotations and optionals it stands."""
    for part in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        bounds = part if isinstance(part, Meta) else _bounds(part)
        if bounds is not None:
            return bounds
    return None


def _with_bounds(hint: Any) -> Any:
    bounds = _bounds(hint)
    return Annotated[_plain_type(hint), bounds] if bounds is not None else _plain_type(hint)


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
}


def words_for(hint: Any) -> str:
    plain, bounds = _plain_type(hint), _bounds(hint)
    words = _WORDS.get(plain, "a list separated by commas")
    return f"{words} from {bounds.ge} to {bounds.le}" if bounds is not None else words


def shown_default(value: object) -> str:
    if isinstance(value, tuple | frozenset):
        return ", ".join(sorted(value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
