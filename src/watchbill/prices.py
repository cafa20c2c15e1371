"""What a GPU-hour costs: a file that an operator writes, by node pool or model, with a default."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import yaml

from watchbill.errors import Invalid
from watchbill.files import read_text

Price = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class Prices(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Of one GPU for one hour: the node pool's price, else the model's, else `gpu_hour`, else none."""

    currency: Annotated[str, msgspec.Meta(min_length=1, max_length=12)]
    gpu_hour: Price | None = None
    gpu_models: Mapping[str, Price] = {}
    node_pools: Mapping[str, Price] = {}


def read_prices(path: Path | None) -> Prices | None:
    """None = no file is set. Raises Invalid, naming what is wrong."""
    if path is None:
        return None
    try:
        return msgspec.convert(yaml.safe_load(read_text(path)) or {}, Prices)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise Invalid(
            f"The prices in {path} are invalid.",
            details=f"{error}\nWrite currency, and gpuHour, gpuModels or nodePools with a price for each.",
        ) from error
