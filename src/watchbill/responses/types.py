"""Types that several answers share."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""Aware; RFC 3339 on the wire."""
Count = Annotated[int, msgspec.Meta(ge=0, extra_json_schema={"format": "int64"})]
PositiveCount = Annotated[int, msgspec.Meta(ge=1, extra_json_schema={"format": "int64"})]
Amount = Annotated[float, msgspec.Meta(ge=0)]

__all__ = ["UUID", "Amount", "Count", "Instant", "PositiveCount"]
