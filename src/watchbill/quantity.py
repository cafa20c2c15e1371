"""Kubernetes quantities: exact reading, exact writing. `64Mi` is not `64M`, and neither is rounded.

Amounts are `int` where they are whole and `Fraction` where they are not; sums of both are exact. Also Go's
durations (`1h30m`), as custom resources write them.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

Amount = int | Fraction

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_QUANTITY = re.compile(
    r"([+-]?)([0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?|[eE][+-]?[0-9]{1,2})",
    re.ASCII,
)
LARGEST = 2**63 - 1
"""Kubernetes caps quantities there, and so does reading."""


def parse_quantity(value: Any) -> Amount | None:
    """The amount that a quantity states, capped at ±(2^63 − 1); None where it is no quantity.

    YAML turns `cpu: 2` into a number, so numbers are read as their text.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    written = value if isinstance(value, str) else repr(value)
    return _parse(written) if len(written) <= 90 else None


@lru_cache(maxsize=4096)
def _parse(value: str) -> Amount | None:
    match = _QUANTITY.fullmatch(value)
    if match is None:
        return None
    sign, digits, suffix = match.groups()
    amount = Fraction(digits)
    if suffix in _BINARY:
        amount *= 1024 ** _BINARY[suffix]
    elif suffix in _DECIMAL:
        amount *= Fraction(10) ** _DECIMAL[suffix]
    else:
        amount *= Fraction(10) ** int(suffix[1:])
    amount = min(amount, Fraction(LARGEST))
    return exact(-amount if sign == "-" else amount)


def exact(amount: Amount) -> Amount:
    """The same amount, as an int where it is whole."""
    if isinstance(amount, Fraction) and amount.denominator == 1:
        return amount.numerator
    return amount


def plus(total: Amount | None, amount: Amount, times: int) -> Amount:
    """The total (None = nothing yet) and so many times the amount. Sums of fractions take longest of all that
    adds up a workload, and mostly there is one pod, or nothing to add it to."""
    added = amount if times == 1 else amount * times
    return exact(total + added if total else added)


@lru_cache(maxsize=4096)
def format_bytes(amount: Amount) -> str:
    """Bytes in the exact form with the fewest digits; binary units where both are equally short.

    Parts of a byte, which only a milli-quantity can ask for, are rounded up as the kubelet does.
    """
    number = -((-amount.numerator) // amount.denominator)
    binary = _scaled(number, 1024, ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))
    decimal = _scaled(number, 1000, ("", "k", "M", "G", "T", "P", "E"))
    digits, suffix = min(binary, decimal, key=lambda form: len(form[0]))
    return digits + suffix


def format_count(amount: Amount) -> str:
    """A number of things: whole where it is whole, else in thousandths (`500m`), rounded up."""
    amount = exact(amount)
    if isinstance(amount, int):
        return str(amount)
    thousandths = -((-amount.numerator * 1000) // amount.denominator)
    return f"{thousandths}m" if thousandths % 1000 else str(thousandths // 1000)


def as_float(amount: Amount | None) -> float | None:
    return None if amount is None else float(amount)


def _scaled(number: int, base: int, suffixes: tuple[str, ...]) -> tuple[str, str]:
    """The number over the largest power of `base` that leaves it whole, and that power's suffix."""
    power = 0
    while number and power < len(suffixes) - 1 and number % base == 0:
        number //= base
        power += 1
    return str(number), suffixes[power]


_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h)")
_LONGEST_SECONDS = 100 * 365 * 86_400


def parse_duration(value: Any) -> float | None:
    """Seconds, at most a hundred years; None where it is no duration."""
    if not isinstance(value, str) or not 0 < len(value) <= 40:
        return None
    seconds = 0.0
    position = 0
    for match in _PART.finditer(value):
        if match.start() != position:
            return None
        seconds += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    return min(seconds, _LONGEST_SECONDS) if position == len(value) else None
