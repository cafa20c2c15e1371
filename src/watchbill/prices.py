"""What a GPU-hour costs, and since when: a file that an operator writes."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated

import msgspec
import yaml

from watchbill.errors import Invalid
from watchbill.files import read_text

Price = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class PriceList(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """Of one GPU for one hour: the node pool's price, else the model's, else `gpu_hour`, else none."""

    gpu_hour: Price | None = None
    gpu_models: Mapping[str, Price] = {}
    node_pools: Mapping[str, Price] = {}


class PriceChange(PriceList, frozen=True, kw_only=True):
    """Counts from a UTC day on, in place of all prices before."""

    since: date = msgspec.field(name="from")


class Prices(PriceList, frozen=True, kw_only=True):
    """The first prices, and their changes by day."""

    currency: Annotated[str, msgspec.Meta(min_length=1, max_length=12)]
    note: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    """What readers of an amount should know of the prices."""
    changes: Annotated[tuple[PriceChange, ...], msgspec.Meta(max_length=100)] = ()

    def __post_init__(self) -> None:
        days = [change.since for change in self.changes]
        if days != sorted(set(days)):
            raise ValueError("`changes` must be in the order of their days, one a day")

    @property
    def has_node_pools(self) -> bool:
        return any(prices.node_pools for prices in (self, *self.changes))


def read_prices(path: Path | None) -> Prices | None:
    """None = no file is set. Raises Invalid, naming what is wrong."""
    if path is None:
        return None
    try:
        return msgspec.convert(yaml.safe_load(read_text(path)) or {}, Prices)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise Invalid(
            f"The prices in {path} are invalid.",
            details=f"{error}\nWrite currency, and gpuHour, gpuModels or nodePools with a price for each; "
            "and changes, each with its day as from: 2026-12-01.",
        ) from error
