"""API server releases that a simulated cluster can stand in for, by what they can do."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """What a release can do."""

    minor: str
    has_aggregated_discovery: bool = True
    streams_lists: bool = True
    counts_partial: bool = True


V1_36 = ServerVersion("36")
V1_20 = ServerVersion(
    "20", has_aggregated_discovery=False, streams_lists=False, counts_partial=False
)


def version_document(version: ServerVersion) -> dict[str, Any]:
    return {
        "major": "1",
        "minor": version.minor,
        "gitVersion": f"v1.{version.minor}.2",
        "gitCommit": "98b35193b2ac7a23a673325f5e9b830ecd5ba406",
        "gitTreeState": "clean",
        "buildDate": "2026-08-21T11:29:11Z",
        "goVersion": "go1.26.6",
        "compiler": "gc",
        "platform": "linux/amd64",
    }
