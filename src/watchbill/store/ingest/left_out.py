"""What a cluster's state leaves out: nodes, node pools and queues that its agent reported and nobody can take.

An agent tells of a node when it changes, and of its queues when one of them does. So why one is left out is
kept with the cluster until it is reported as it can be, or is gone, and stands in each of its states.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Literal

import msgspec

from watchbill.protocol import Heartbeat, KindState, NodeChanges
from watchbill.workload import Wire

Kind = Literal["Node", "Queue"]
Reasons = Mapping[str, str]
"""Why, by name; "" where not even the name can be read."""

MESSAGES_CHARACTERS = 200_000
"""Of all kinds of a cluster; where more were sent, each is cut to its share."""
MIN_MESSAGE_CHARACTERS = 200
MAX_REASONS = 200
"""Kept of one kind; an agent that was taken over has ever new names."""
MAX_REASON_CHARACTERS = 300
NO_ROOM = "the cluster has stored as much as WATCHBILL_CLUSTER_STORED_BYTES permits"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What could not be decoded of one heartbeat."""

    node_pools: Reasons = field(default_factory=dict)
    nodes: Reasons = field(default_factory=dict)
    queues: Reasons = field(default_factory=dict)


class KeptReasons(Wire, frozen=True):
    """Of one kind, as the cluster keeps them."""

    since: datetime
    reasons: dict[str, str]


_STORED = msgspec.json.Decoder(dict[str, KeptReasons])


def kept_reasons(
    stored: bytes | None, beat: Heartbeat, left_out: LeftOut, now: datetime, *, keeps_nodes: bool
) -> dict[str, KeptReasons]:
    """What is left out after this heartbeat. `keeps_nodes`: nothing was taken of its nodes, so what was left
    out before still is."""
    before = _STORED.decode(stored) if stored else {}
    earlier = {kind: kept.reasons for kind, kept in before.items()}
    reasons: dict[Kind, Reasons] = {
        "Node": earlier.get("Node", {})
        if keeps_nodes
        else _nodes(earlier.get("Node", {}), beat.nodes, left_out.nodes),
        "Queue": earlier.get("Queue", {}) if beat.queues is None else left_out.queues,
    }
    return {
        kind: KeptReasons(
            since=before[kind].since if kind in before else now, reasons=_bounded(each)
        )
        for kind, each in reasons.items()
        if each
    }


def _nodes(earlier: Reasons, changes: NodeChanges | None, undecoded: Reasons) -> Reasons:
    if changes is None:
        return {}
    reported = {node.name for node in changes.changed}.union(changes.removed)
    if changes.since is None:
        earlier = {name: earlier[name] for name in changes.names if name in earlier}
    return {name: why for name, why in earlier.items() if name not in reported} | dict(undecoded)


def _bounded(reasons: Reasons) -> dict[str, str]:
    first = islice(reasons.items(), MAX_REASONS)
    return {name: why[:MAX_REASON_CHARACTERS] for name, why in first}


def with_left_out(
    kinds: Sequence[KindState],
    kept: Mapping[str, KeptReasons],
    node_pools: Reasons,
    now: datetime,
    *,
    nodes_have_room: bool,
) -> tuple[KindState, ...]:
    """The states of the cluster's kinds, where those of nodes and queues say what is left out of them."""
    nodes, queues = (kept[kind].reasons if kind in kept else {} for kind in ("Node", "Queue"))
    sentences = {
        "Node": _joined(
            _sentence(node_pools, "node pools"),
            _sentence(nodes, "nodes"),
            "" if nodes_have_room else f"New and changed nodes are not stored: {NO_ROOM}.",
        ),
        "Queue": _sentence(queues, "queues"),
    }
    for kind, sentence in sentences.items():
        if sentence:
            since = kept[kind].since if kind in kept else now
            kinds = _with_state(kinds, kind, sentence, since)
    return tuple(_with_short_messages(kinds))


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _sentence(reasons: Reasons, what: str) -> str:
    if not reasons:
        return ""
    count = f"{len(reasons)} and more" if len(reasons) >= MAX_REASONS else f"{len(reasons)}"
    name, why = next(iter(reasons.items()))
    return f"{count} {what} cannot be and are left out: {f'{name}: ' if name else ''}{why}"


def _with_state(
    kinds: Iterable[KindState], kind: str, message: str, since: datetime
) -> Sequence[KindState]:
    """In place of what the agent says of the kind, which may be that it is read completely."""
    own = ("", kind)
    state = KindState(group="", kind=kind, state="failing", since=since, message=message)
    return [*(each for each in kinds if (each.group, each.kind) != own), state]


def _with_short_messages(kinds: Sequence[KindState]) -> list[KindState]:
    """Every answer about the cluster carries them: together as much as a few may say at length."""
    most = max(MIN_MESSAGE_CHARACTERS, MESSAGES_CHARACTERS // max(1, len(kinds)))
    return [
        msgspec.structs.replace(kind, message=kind.message[:most])
        if kind.message is not None and len(kind.message) > most
        else kind
        for kind in kinds
    ]
