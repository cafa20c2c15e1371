"""From the word that a person typed to the one thing it means, or an error that says what to type."""

from typing import TYPE_CHECKING

from watchbill.errors import NotFound

if TYPE_CHECKING:
    from watchbill.client import Client
    from watchbill.client.reader import JSON


async def find_cluster(client: "Client", word: str) -> "JSON":
    """By id or name. Raises NotFound, naming the clusters that there are."""
    clusters = await client.clusters()
    for cluster in clusters:
        if word in (cluster["id"], cluster["name"]):
            return cluster
    names = ", ".join(cluster["name"] for cluster in clusters)
    raise NotFound(
        f"There is no cluster '{word}'.",
        details=f"clusters: {names}" if names else "no cluster is registered yet",
    )
