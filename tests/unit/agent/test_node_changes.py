"""Whatever happens to nodes, to messages and to either side, the server ends with the nodes that there are."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.records import node
from watchbill.agent.cache.nodes import PresentedNode
from watchbill.agent.stream import object_changes
from watchbill.agent.stream.object_changes import NodeChangeTracker
from watchbill.cluster_node import ClusterNode, node_bytes, node_hash, nodes_digest
from watchbill.protocol import NodeChanges

NODES = st.dictionaries(
    st.sampled_from([f"node-{n}" for n in range(6)]),
    st.sampled_from(["Ready", "NotReady", "Unknown"]),
)
EVENTS = st.sampled_from(["answered", "lost", "reply lost", "agent restarts", "server forgets"])


def present(made: dict[str, str]) -> dict[str, PresentedNode]:
    presented = {}
    for name, status in sorted(made.items()):
        each = node(name, status=status)
        encoded = node_bytes(each)
        presented[name] = PresentedNode(each, len(encoded), node_hash(encoded))
    return presented


class Server:
    def __init__(self) -> None:
        self.nodes: dict[str, ClusterNode] = {}
        self.digest: str | None = None

    def take(self, changes: NodeChanges) -> bool:
        """Whether it wants all of them."""
        if changes.since is not None and changes.since != self.digest:
            return True
        if changes.since is None:
            kept = set(changes.names)
            self.nodes = {name: each for name, each in self.nodes.items() if name in kept}
        for name in changes.removed:
            self.nodes.pop(name, None)
        self.nodes |= {each.name: each for each in changes.changed}
        self.digest = changes.digest
        return False


def exchange(
    node_changes: NodeChangeTracker, server: Server, nodes: dict[str, PresentedNode]
) -> None:
    node_changes.acknowledge(wants_nodes=server.take(node_changes.changes(nodes)))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NODES, EVENTS), max_size=12), st.sampled_from([1, 900, 10**6]))
def test_the_server_ends_with_what_there_is(
    steps: list[tuple[dict[str, str], str]], message_bytes: int
) -> None:
    node_changes, server, nodes = NodeChangeTracker(), Server(), present({})
    before, object_changes.MESSAGE_BYTES = object_changes.MESSAGE_BYTES, message_bytes
    try:
        for made, event in steps:
            nodes = present(made)
            if event == "agent restarts":
                node_changes = NodeChangeTracker()
            if event == "server forgets":
                server = Server()
            changes = node_changes.changes(nodes)
            if event != "lost":
                wants = server.take(changes)
                if event != "reply lost":
                    node_changes.acknowledge(wants_nodes=wants)
        for _ in range(len(nodes) + 3):
            exchange(node_changes, server, nodes)
    finally:
        object_changes.MESSAGE_BYTES = before
    assert server.nodes == {name: each.node for name, each in nodes.items()}
    assert server.digest == nodes_digest({name: each.hash for name, each in nodes.items()})
    quiet = node_changes.changes(nodes)
    assert (quiet.changed, quiet.removed, quiet.names) == ((), (), ())


def test_an_agent_that_restarts_sends_nothing_that_the_server_holds() -> None:
    nodes, server = present({"node-1": "Ready", "node-2": "Ready"}), Server()
    first = NodeChangeTracker()
    for _ in range(2):
        exchange(first, server, nodes)
    changes = NodeChangeTracker().changes(nodes)
    assert (changes.changed, changes.names) == ((), ())
    assert not server.take(changes)


def test_one_changed_node_travels_alone() -> None:
    node_changes, server = NodeChangeTracker(), Server()
    made = {f"node-{n}": "Ready" for n in range(50)}
    for _ in range(2):
        exchange(node_changes, server, present(made))
    changes = node_changes.changes(present(made | {"node-7": "NotReady"}))
    assert [each.name for each in changes.changed] == ["node-7"]
